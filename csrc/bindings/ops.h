// From Python's tuples to ops of any program.
#pragma once

#include <array>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "checks.h"
#include "tabulated.h"

namespace ntk {

// kind, dual, slot, other (of a tabulated op its table), constants.
using OpTuple = std::tuple<std::string, std::string, int, int, std::array<double, 4>>;

// The pointwise op of an activation, and of a layer, by its name.
const std::map<std::string, Pointwise>& duals();
const std::map<std::string, Pointwise>& pointwise_layers();

// Calls append(kind, pointwise op, constants) for every op that one of Python's stands for, of
// which tables make several: "dual" with an activation's name, a layer's own name, or one of
// `kinds`.
template <class Kind, class Append>
void append_ops(const std::map<std::string, Kind>& kinds, const char* what, const std::string& name,
                const std::string& dual, int other, const std::array<double, 4>& p,
                const OwnedTables& tables, const Append& append) {
  const Constants constants{{p[0], p[1], p[2], p[3]}, nullptr, 0, 0, 0, 1};
  if (is_tabulated(name))
    return append_tabulated(
        name, tables, other, constants,
        [&](Pointwise part, const Constants& own) { append(Kind::pointwise, part, own); });
  if (name == "dual")
    return append(Kind::pointwise, find(duals(), dual, "dual activation"), constants);
  const auto layer = pointwise_layers().find(name);
  if (layer != pointwise_layers().end()) return append(Kind::pointwise, layer->second, constants);
  append(find(kinds, name, what), Pointwise{}, constants);
}

// The ops of a program of vectors, or of a head; ValueError where one does not fit.
std::vector<Op> checked_ops(const std::vector<OpTuple>& ops, int slots, int outputs,
                            const OwnedTables& tables);

}  // namespace ntk
