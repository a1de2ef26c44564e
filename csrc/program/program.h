// The program a network spec becomes: plain ops over slots. A slot holds the covariance K and the
// tangent kernel T.
#pragma once

#include "../math/ops.h"

namespace ntk {

enum class OpKind : int {
  affine,     // K, T of `slot` <- an Affine of them      (dense layer)
  pointwise,  // K, T <- E, D T                           (activation, layer normalisation);
              // or nothing, if it holds features only    (terms of a series)
  copy,       // slot `slot` <- slot `other`
  add,        // slot `slot` += slot `other`              (sum of independent branches)
  multiply,   // K, T <- K K', T K' + K T' of both slots  (product of independent branches)
  emit,       // output number `other` <- an Affine of `slot`
};

struct Op {
  OpKind kind;
  Pointwise pointwise;
  int slot;
  int other;  // second slot, or the output's number
  Constants constants;
};

// Of a vector op or a plane op.
template <class AnyOp>
bool is_abrelu(const AnyOp& op) {
  return op.kind == decltype(op.kind)::pointwise && op.pointwise == Pointwise::abrelu;
}

inline bool is_affine(OpKind kind) { return kind == OpKind::affine || kind == OpKind::emit; }

// Of an op of any program: does K(s x, s' x') = s s' K(x, x') for all s, s' > 0 outlive it? Without
// bias, and of nonlinearities the ReLU's kind alone.
template <class AnyOp>
bool keeps_scale(const AnyOp& op) {
  using Kind = decltype(op.kind);
  if (op.kind == Kind::pointwise) return is_abrelu(op);
  if (op.kind == Kind::multiply) return false;
  return !is_affine(op.kind) || (op.constants.affine().b == 0 && op.constants.affine().f == 0);
}

struct Program {
  const Op* ops;
  int size;
  int slots;
  int outputs;
};

// Is the program a plain ReLU network: affine, (abrelu, emit*, affine)*, abrelu, emit+, all in
// slot 0? Those run as one chain in registers (cpu/chain.h).
inline bool is_relu_chain(const Program& program) {
  const auto affine_at = [&](int i) {
    if (i >= program.size || program.ops[i].kind != OpKind::affine) return false;
    const Affine<double> map = program.ops[i].constants.affine();
    // The chain divides by a, and by b where there is an f.
    return map.a > 0 && (map.b > 0 || map.f == 0);
  };
  const auto relu_at = [&](int i) {
    if (i >= program.size || !is_abrelu(program.ops[i])) return false;
    const ReluSlopes slopes = program.ops[i].constants.relu();
    return slopes.below != 0 || slopes.above != 0;
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
