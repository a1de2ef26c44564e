#include "device.cuh"
#include "full_run.h"
#include "tiles.h"

namespace ntk {

void Cuda::full(const FullTile<double>& tile, StreamOf stream) {
  CudaDevice device(stream);
  FullRun<double, CudaDevice>(tile, device).run();
}

}  // namespace ntk
