#include "device.cuh"
#include "image_run.h"
#include "tiles.h"

namespace ntk {

void Cuda::images(const ImageTile<float>& tile, StreamOf stream) {
  CudaDevice device(stream);
  ImageRun<float, CudaDevice>(tile, device).run();
}

}  // namespace ntk
