#include "device.cuh"
#include "image_run.h"
#include "tiles.h"

namespace ntk {

void Cuda::images(const ImageTile<double>& tile, StreamOf stream) {
  CudaDevice device(stream);
  ImageRun<double, CudaDevice>(tile, device).run();
}

}  // namespace ntk
