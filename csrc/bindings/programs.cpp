// Programs of vectors, and heads: an op that does not fit raises, so that backends may trust all of
// them.
#include <memory>
#include <utility>
#include <vector>

#include "bind.h"
#include "ops.h"

namespace ntk {

#define NTK_NAME(name, Phi) {#name, Pointwise::name},
const std::map<std::string, Pointwise>& duals() {
  static const std::map<std::string, Pointwise> all = {NTK_FOR_EACH_DUAL(NTK_NAME)};
  return all;
}
const std::map<std::string, Pointwise>& pointwise_layers() {
  static const std::map<std::string, Pointwise> all = {NTK_FOR_EACH_POINTWISE_LAYER(NTK_NAME)};
  return all;
}
#undef NTK_NAME

namespace {

const std::map<std::string, OpKind> kKinds = {{"affine", OpKind::affine},
                                              {"copy", OpKind::copy},
                                              {"add", OpKind::add},
                                              {"multiply", OpKind::multiply},
                                              {"emit", OpKind::emit}};

std::vector<std::string> names_of_duals() {
  std::vector<std::string> names;
  for (const auto& [name, dual] : duals()) names.push_back(name);
  return names;
}

void check_op(const Op& op, int slots, int outputs) {
  require(op.slot >= 0 && op.slot < slots, "op: slot out of range");
  require(!of_two_slots(op.kind) || (op.other >= 0 && op.other < slots),
          "op: second slot out of range");
  require(op.kind != OpKind::emit || (op.other >= 0 && op.other < outputs),
          "emit: output out of range");
}

std::shared_ptr<OwnedProgram> make_program(const std::vector<OpTuple>& ops, int slots, int outputs,
                                           const std::vector<Array<double>>& arrays) {
  OwnedTables tables = owned_tables(arrays);
  std::vector<Op> checked = checked_ops(ops, slots, outputs, tables);
  return std::make_shared<OwnedProgram>(std::move(checked), slots, outputs, std::move(tables));
}

// Numbers of the ops with constants that a dense layer gave.
std::vector<int> dense_ops(const OwnedProgram& owned) {
  const Program program = owned.view();
  std::vector<int> numbers;
  for (int i = 0; i < program.size; ++i)
    if (is_affine(program.ops[i].kind)) numbers.push_back(i);
  return numbers;
}

}  // namespace

std::vector<Op> checked_ops(const std::vector<OpTuple>& ops, int slots, int outputs,
                            const OwnedTables& tables) {
  require(slots >= 1 && slots <= 4096, "a program has between 1 and 4096 slots");
  require(outputs >= 1 && outputs <= 65536, "a program has between 1 and 65536 outputs");
  std::vector<Op> checked;
  for (const OpTuple& tuple : ops) {
    const auto& [name, dual, slot, other, p] = tuple;
    const auto append = [&, slot = slot, other = other](OpKind kind, Pointwise part,
                                                        const Constants& constants) {
      checked.push_back({kind, part, slot, other, constants});
      check_op(checked.back(), slots, outputs);
    };
    append_ops(kKinds, "op", name, dual, other, p, tables, append);
  }
  return checked;
}

void bind_programs(py::module_& m) {
  m.def("duals", &names_of_duals, "Names of the dual activations.");
  py::class_<OwnedProgram, std::shared_ptr<OwnedProgram>>(m, "Program",
                                                          "Ops over slots; csrc/program/program.h.")
      .def(py::init(&make_program), py::arg("ops"), py::arg("slots"), py::arg("outputs"),
           py::arg("tables") = std::vector<Array<double>>())
      .def_property_readonly("is_relu_chain",
                             [](const OwnedProgram& p) { return is_relu_chain(p.view()); })
      .def_property_readonly("dense_ops", &dense_ops);
}

}  // namespace ntk
