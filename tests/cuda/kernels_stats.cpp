// The CUDA kernels as the emulator runs them, their own sources compiled as C++: token_stats.

#include "../../csrc/cuda/scale.cu"
#include "../../csrc/cuda/token_stats.cu"
#include "../../csrc/cuda/token_stats_full_backward.cu"
#include "../../csrc/cuda/token_stats_full_forward.cu"
#include "../../csrc/cuda/token_stats_full_gradient.cu"
#include "../../csrc/cuda/token_stats_gradient.cu"
