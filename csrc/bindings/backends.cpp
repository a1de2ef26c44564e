// The list of backends, and a look at numbers by one of them.
#include <optional>
#include <utility>
#include <vector>

#include "bind.h"
#include "checks.h"

namespace ntk {
namespace {

std::vector<std::pair<std::string, std::optional<std::string>>> list_backends() {
  int count;
  const Backend* all = backends(&count);
  std::vector<std::pair<std::string, std::optional<std::string>>> out;
  for (int i = 0; i < count; ++i)
    out.emplace_back(all[i].name,
                     all[i].missing ? std::optional<std::string>(all[i].missing) : std::nullopt);
  return out;
}

// The least and largest of a float32 matrix whose rows are contiguous.
std::pair<float, float> extremes(const std::string& backend, const py::array& data) {
  constexpr std::int64_t bytes = sizeof(float);
  require(py::isinstance<py::array_t<float>>(data) && data.ndim() == 2 && data.size() > 0 &&
              data.strides(1) == bytes && data.strides(0) % bytes == 0,
          "extremes: data must be a float32 matrix with contiguous rows, not empty");
  const Extremes found =
      backend_named(backend).extremes(static_cast<const float*>(data.data()), data.shape(0),
                                      data.shape(1), data.strides(0) / bytes);
  return {found.low, found.high};
}

}  // namespace

const Backend& backend_named(const std::string& name) {
  int count;
  const Backend* all = backends(&count);
  for (int i = 0; i < count; ++i) {
    if (name != all[i].name) continue;
    require(!all[i].missing, "backend '" + name + "': " + (all[i].missing ? all[i].missing : ""));
    return all[i];
  }
  throw py::value_error("unknown backend '" + name + "'");
}

void bind_backends(py::module_& m) {
  m.def("backends", &list_backends,
        "Backends of this build, best first: (name, why it cannot run here or None).");
  m.def("extremes", &extremes, "The least and largest of a float32 matrix.", py::arg("backend"),
        py::arg("data"));
}

}  // namespace ntk
