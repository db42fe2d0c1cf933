// The CUDA kernels as the emulator runs them: draws.

#include "../../csrc/cuda/row_threshold.cu"
#include "../../csrc/cuda/sample.cu"
