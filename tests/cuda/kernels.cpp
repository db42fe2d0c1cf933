// The CUDA kernels as the emulator runs them: their own sources, compiled as C++.

#include "../../csrc/cuda/row_threshold.cu"
#include "../../csrc/cuda/sample.cu"
#include "../../csrc/cuda/token_stats.cu"
