#include "device.cuh"
#include "image_run.h"
#include "tiles.h"
#include "vector_run.h"

namespace ntk {

void Cuda::vectors(const Tile<double>& tile, StreamOf stream) {
  CudaDevice device(stream);
  VectorRun<double, CudaDevice>(tile, device).run();
}
void Cuda::images(const ImageTile<double>& tile, StreamOf stream) {
  CudaDevice device(stream);
  ImageRun<double, CudaDevice>(tile, device).run();
}

}  // namespace ntk
