// The current CUDA stream, without linking against CUDA: the binary must also load where torch has none.

#include "device.h"

#if defined(PGEST_CUDA)

#include <dlfcn.h>

namespace pgest::ops {
namespace {

// torch's C interface, which the stable ABI keeps: 0 means success.
using CurrentStream = int32_t (*)(int32_t device, void** stream);

CurrentStream find() {
  void* torch_cuda = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  void* found = torch_cuda ? dlsym(torch_cuda, "aoti_torch_get_current_cuda_stream") : nullptr;
  return reinterpret_cast<CurrentStream>(found);
}

}  // namespace

void* current_cuda_stream(int32_t device) {
  static const CurrentStream current = find();
  if (!current) throw std::runtime_error("pgest found no CUDA streams in this torch");
  void* stream = nullptr;
  if (current(device, &stream) != 0) throw std::runtime_error("pgest got no CUDA stream from torch");
  return stream;
}

}  // namespace pgest::ops

#else

namespace pgest::ops {

void* current_cuda_stream(int32_t) {
  throw std::runtime_error("pgest was built without CUDA kernels");
}

}  // namespace pgest::ops

#endif
