#include "device.cuh"
#include "full_run.h"
#include "tiles.h"

namespace ntk {

void Cuda::full(const FullTile<float>& tile, StreamOf stream) {
  CudaDevice device(stream);
  FullRun<float, CudaDevice>(tile, device).run();
}

}  // namespace ntk
