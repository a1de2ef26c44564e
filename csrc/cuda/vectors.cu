#include "device.cuh"
#include "tiles.h"
#include "vector_run.h"

namespace ntk {

void Cuda::vectors(const Tile<float>& tile, StreamOf stream) {
  CudaDevice device(stream);
  VectorRun<float, CudaDevice>(tile, device).run();
}
void Cuda::vectors(const Tile<double>& tile, StreamOf stream) {
  CudaDevice device(stream);
  VectorRun<double, CudaDevice>(tile, device).run();
}

}  // namespace ntk
