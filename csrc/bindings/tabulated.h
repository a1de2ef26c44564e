// From a table of Python's to the ops of a series (math/series.h) or of kinks (math/kinks.h).
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../program/owned_program.h"
#include "checks.h"

namespace ntk {

using OwnedTables = OwnedProgram::Tables;

// Raises where a table's size is not what its header says.
inline void check_table(const std::vector<double>& values) {
  require(values.size() > SeriesTable::kHeader, "series: its table has no header");
  for (int k = 0; k < SeriesTable::kHeader - 1; ++k)
    require(std::abs(values[k]) <= 1 << 16 && values[k] == std::floor(values[k]),
            "series: its table's header must hold small whole numbers");
  const SeriesTable table{values.data()};
  const bool range = table.octaves() >= 1 && table.octaves() <= 1000 && table.size() >= 2 &&
                     table.most() > 0 && std::isfinite(1 / table.most());
  require(range, "series: its table's range is out of range");
  require(table.even() >= 0 && table.odd() >= 0, "series: a number of terms is negative");
  const double expected = SeriesTable::kHeader + double(table.functions()) +
                          double(table.octaves()) * table.functions() * table.size();
  require(double(values.size()) == expected, "series: its table's size differs from its header");
}

inline OwnedTables owned_tables(const std::vector<Array<double>>& arrays) {
  OwnedTables tables;
  for (const Array<double>& array : arrays) {
    std::vector<double> values(array.data(), array.data() + array.size());
    tables.push_back(std::make_shared<const std::vector<double>>(std::move(values)));
  }
  return tables;
}

// Calls append(kind of op, its constants) for every op of the series: its pairs of features in
// order, the last of which acts.
template <class Append>
void append_series(const OwnedTables& tables, int which, const Constants& kinks,
                   const Append& append) {
  check_table(*tables[which]);
  const SeriesTable table{tables[which]->data()};
  bool kinked = false;
  for (double k : kinks.p) kinked |= k != 0;
  const int terms = table.even() + table.odd(), features = 4 + (kinked ? 2 : 1) * terms,
            pairs = table.functions() / 2;
  require(table.functions() % 2 == 0 && pairs >= 2 && 2 * pairs >= features,
          "series: its table has too few functions for its terms");
  for (int n = 0; n < pairs; ++n) {
    Constants constants = kinks;
    constants.table = table.data;
    constants.even = table.even();
    constants.odd = table.odd();
    constants.number = n;
    constants.pairs = pairs;
    append(n < pairs - 1 ? Pointwise::series_terms : Pointwise::series, constants);
  }
}

inline bool is_tabulated(const std::string& name) { return name == "series" || name == "kinks"; }

// The same of either, by its name.
template <class Append>
void append_tabulated(const std::string& name, const OwnedTables& tables, int which,
                      Constants constants, const Append& append) {
  require(which >= 0 && which < int(tables.size()), name + ": table out of range");
  if (name == "series") return append_series(tables, which, constants, append);
  require(tables[which]->size() == Kinks<double>::kTable, "kinks: its table has another size");
  constants.table = tables[which]->data();
  append(Pointwise::kinks, constants);
}

}  // namespace ntk
