// The kernels of neon.cpp, compiled with the 8-bit matrix multiplication.
#include "neon.cpp"
