#include "device.cuh"
#include "image_run.h"
#include "tiles.h"
#include "vector_run.h"

namespace ntk {

void Cuda::vectors(const Tile<float>& tile, StreamOf stream) {
  CudaDevice device(stream);
  VectorRun<float, CudaDevice>(tile, device).run();
}
void Cuda::images(const ImageTile<float>& tile, StreamOf stream) {
  CudaDevice device(stream);
  ImageRun<float, CudaDevice>(tile, device).run();
}

}  // namespace ntk
