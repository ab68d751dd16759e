// The kernels of avx2.cpp, compiled with AVX-VNNI.
#include "avx2.cpp"
