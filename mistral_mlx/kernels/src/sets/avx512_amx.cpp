// Many rows with AMX, the rest with AVX512-BF16.
#include "avx512.cpp"
