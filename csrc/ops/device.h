// Where a kernel runs: over rows in parallel on the CPU, or on the current CUDA stream.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>

#include "../kernels/common.h"

#if defined(PGEST_EMULATE)
#include "emulate.h"
#endif

namespace pgest::ops {

using torch::stable::Tensor;

// Elements below which a second thread costs more than it saves.
constexpr int64_t kGrain = 16384;

// One kernel on every device.
template <class Args>
struct Kernel {
  Refusal (*cpu)(const Args& args, int64_t begin, int64_t end);
  const char* (*cuda)(const Args& args, void* stream);  // null where the build has none
};

#if defined(PGEST_EMULATE)  // runs the CUDA kernels for tensors of the CPU
#define PGEST_KERNEL(name) {nullptr, name##_cuda}
#elif defined(PGEST_CUDA)
#define PGEST_KERNEL(name) {name##_cpu, name##_cuda}
#else
#define PGEST_KERNEL(name) {name##_cpu, nullptr}
#endif

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cpu() == b.is_cpu() && (a.is_cpu() || a.get_device() == b.get_device());
}

// The stream that torch runs on now; nullptr is CUDA's default stream.
void* current_cuda_stream(int32_t device);

// Runs a kernel over rows [0, num_rows) of `row_elements` each, in parallel where that pays; of
// refusals the first row's is returned.
template <class F>
Refusal over_rows(int64_t num_rows, int64_t row_elements, const F& kernel) {
  std::mutex guard;
  Refusal refusal;
  const auto range = [&](int64_t begin, int64_t end) {
    const Refusal r = kernel(begin, end);
    if (r.kind == Refusal::none) return;
    const std::lock_guard<std::mutex> lock(guard);
    if (refusal.kind == Refusal::none || r.row < refusal.row) refusal = r;
  };
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row_elements));
  if (num_rows <= grain) {
    range(0, num_rows);
  } else {
    torch::stable::parallel_for(0, num_rows, grain, range);
  }
  return refusal;
}

inline void check_launch(const char* error) {
  if (error) throw std::runtime_error(std::string("pgest's CUDA kernel did not start: ") + error);
}

// Runs a kernel where `like` is. On CUDA nothing is refused here: that would wait for the device.
template <class Args>
Refusal run(const Kernel<Args>& kernel, const Tensor& like, const Args& args, int64_t num_rows,
            int64_t row_elements) {
#if defined(PGEST_EMULATE)
  check_launch(kernel.cuda(args, nullptr));
  return emulated::take_refusal();
#else
  if (!like.is_cpu()) {
    const torch::stable::accelerator::DeviceGuard guard(like.get_device());
    check_launch(kernel.cuda(args, current_cuda_stream(like.get_device())));
    return {};
  }
  return over_rows(num_rows, row_elements,
                   [&](int64_t begin, int64_t end) { return kernel.cpu(args, begin, end); });
#endif
}

}  // namespace pgest::ops

// Registers what `implement(library)` does for every device that there are kernels for.
#if defined(PGEST_CUDA)
#define PGEST_IMPLEMENT(implement)                                    \
  STABLE_TORCH_LIBRARY_IMPL(pgest, CPU, library) { implement(library); } \
  STABLE_TORCH_LIBRARY_IMPL(pgest, CUDA, library) { implement(library); }
#else
#define PGEST_IMPLEMENT(implement) \
  STABLE_TORCH_LIBRARY_IMPL(pgest, CPU, library) { implement(library); }
#endif
