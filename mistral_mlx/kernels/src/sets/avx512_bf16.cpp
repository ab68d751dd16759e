// The kernels of avx512.cpp, compiled with AVX512-BF16.
#include "avx512.cpp"
