// The program a network spec becomes: plain ops over slots. A slot holds the covariance K and the tangent kernel T.
#pragma once

#include "../math/dual.h"

namespace ntk {

enum class OpKind : int {
  affine,     // K, T of `slot`:  T <- a T + e K + f,  K <- a K + b           (dense layer)
  dual,       // K, T <- E, D T                                               (activation)
  normalize,  // K, T <- K, T / sqrt((q + eps)(q' + eps))                     (layer normalisation)
  copy,       // slot `slot` <- slot `other`
  add,        // slot `slot` += slot `other`                                  (sum of independent branches)
  emit,       // output number `other` <- a K + b  and  a T + e K + f  of `slot`
};

struct Op {
  OpKind kind;
  Dual dual;  // of an activation
  int slot;
  int other;    // second slot, or the output's number
  double p[4];  // a, b, e, f of affine and emit; an activation's constants; eps
};

struct Program {
  const Op* ops;
  int size;
  int slots;
  int outputs;
};

// Is the program a plain ReLU network: affine, (abrelu, emit*, affine)*, abrelu, emit+, all in slot 0? Those run as
// one chain in registers (cpu/chain.h).
inline bool is_relu_chain(const Program& program) {
  const auto affine_at = [&](int i) {
    if (i >= program.size || program.ops[i].kind != OpKind::affine) return false;
    const double* p = program.ops[i].p;
    return p[0] > 0 && (p[1] > 0 || p[3] == 0);  // the chain divides by a, and by b where there is an f
  };
  const auto relu_at = [&](int i) {
    if (i >= program.size || program.ops[i].kind != OpKind::dual || program.ops[i].dual != Dual::abrelu) return false;
    return program.ops[i].p[0] != 0 || program.ops[i].p[1] != 0;
  };
  for (int i = 0; i < program.size; ++i)
    if (program.ops[i].slot != 0) return false;
  int i = 0;
  while (affine_at(i) && relu_at(i + 1)) {
    for (i += 2; i < program.size && program.ops[i].kind == OpKind::emit; ++i) {
    }
    if (i == program.size) return program.ops[i - 1].kind == OpKind::emit;
  }
  return false;
}

}  // namespace ntk
