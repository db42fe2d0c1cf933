// The CUDA kernels as the emulator runs them: relaxed samples and bits.

#include "../../csrc/cuda/bits.cu"
#include "../../csrc/cuda/gumbel_softmax.cu"
#include "../../csrc/cuda/sample_bits.cu"
#include "../../csrc/cuda/softmax_backward.cu"
#include "../../csrc/cuda/straight_through.cu"
