// The CUDA kernels as the emulator runs them: their own sources, compiled as C++.

#include "../../csrc/cuda/row_threshold.cu"
#include "../../csrc/cuda/sample.cu"
#include "../../csrc/cuda/token_stats.cu"
#include "../../csrc/cuda/token_stats_full_backward.cu"
#include "../../csrc/cuda/token_stats_full_forward.cu"
#include "../../csrc/cuda/gumbel_softmax.cu"
#include "../../csrc/cuda/softmax_backward.cu"
#include "../../csrc/cuda/straight_through.cu"
#include "../../csrc/cuda/bits.cu"
#include "../../csrc/cuda/sample_bits.cu"
