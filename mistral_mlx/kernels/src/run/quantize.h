// Quantizing on all threads; knows nothing of files or Python.
#pragma once
#include "../contract.h"

namespace kernels {

struct Unpacked {
  const void* weights;  // [n_out, n_in]; any alignment
  Float type;
};

// Where packed weights go: as Packed in contract.h, which only reads them.
struct PackedOut {
  uint8_t* codes;
  void* scales;
  void* biases;
  Float type;  // of scales and biases; weights are rounded to it first
  int bits, group;
  int64_t n_out, n_in;
};

struct Loss {
  double error, norm;  // sums of (w - unpacked)^2 and of w^2
  float largest;       // magnitude of a finite weight
  bool finite;         // whether all weights are
};

// Packs weights exactly as mx.quantize does (affine mode), and says what that costs; or with a search for better scales
// and biases (search.h), where the importance [n_in] of every input is finite and not negative, and null if all are
// alike. Neither the bits nor the sums depend on the number of threads or the instruction set.
Loss quantize(const Unpacked& w, const PackedOut& out, bool search = false, const float* importance = nullptr);

}  // namespace kernels
