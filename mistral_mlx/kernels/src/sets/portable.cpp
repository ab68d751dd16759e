// The kernels in plain C++: what runs on any CPU, and the oracle of every other file.
#include "../parts/attention.h"
#include "../parts/scalars.h"
#include "../parts/search.h"

namespace kernels {
namespace {

// The code of input k; a code may lie across two words.
uint32_t code_at(const uint8_t* row, int bits, int64_t k) {
  const int64_t bit = k * bits;
  uint32_t window = row[bit / 8];
  if (bit % 8 + bits > 8) window |= static_cast<uint32_t>(row[bit / 8 + 1]) << 8;
  return (window >> (bit % 8)) & ((1u << bits) - 1);
}

int16_t* fine_codes(const Fine& x) { return reinterpret_cast<int16_t*>(x.planes); }

void round_fine(const float* x, const Packed& w, const Fine& out) {
  round_row(x, w.n_in, w.group, row_limit(w.bits), fine_codes(out), out.scales, out.sums);
}

// code(k) is the rounded activation of input k.
template <typename Code>
float product(const Packed& w, int64_t n, Code&& code, const float* scales, const float* sums) {
  const uint8_t* row = w.codes + n * w.row_bytes();
  float y = 0.0f;
  for (int64_t g = 0; g < w.groups(); ++g) {
    int32_t dot = 0;
    for (int64_t k = g * w.group; k < (g + 1) * w.group; ++k)
      dot += static_cast<int32_t>(code_at(row, w.bits, k)) * code(k);
    const int64_t i = n * w.groups() + g;
    y += static_cast<float>(dot) * (load_float(w.scales, w.type, i) * scales[g]);
    y += load_float(w.biases, w.type, i) * sums[g];
  }
  return y;
}

void packed_row(const Packed& w, const Fine& x, float* y, int64_t n0, int64_t n1) {
  const int16_t* codes = fine_codes(x);
  for (int64_t n = n0; n < n1; ++n) y[n] = product(w, n, [=](int64_t k) { return codes[k]; }, x.scales, x.sums);
}

void packed_rows(const Packed& w, const Rows& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void*) {
  for (int64_t n = n0; n < n1; ++n)
    for (int64_t m = 0; m < x.rows; ++m) {
      const int8_t* codes = x.codes + m * x.planes * x.stride;
      const auto code = [&](int64_t k) { return x.planes == 1 ? codes[k] : 256 * codes[k] + codes[x.stride + k]; };
      y[m * y_stride + n] = product(w, n, code, x.scales + m * x.group_stride, x.sums + m * x.group_stride);
    }
}

void dense_row(const Dense& w, const float* x, float* y, int64_t n0, int64_t n1) {
  for (int64_t n = n0; n < n1; ++n) {
    float parts[16] = {};  // as wide sums as the vector kernels have: a single one would be less exact than they are
    for (int64_t k = 0; k < w.n_in; ++k) parts[k % 16] += load_float(w.weights, w.type, n * w.n_in + k) * x[k];
    float total = 0.0f;
    for (float part : parts) total += part;
    y[n] = total;
  }
}

void dense_rows(const Dense& w, const float* x, int64_t rows, float* y, int64_t y_stride, int64_t n0, int64_t n1,
                void*) {
  for (int64_t m = 0; m < rows; ++m) dense_row(w, x + m * w.n_in, y + m * y_stride, n0, n1);
}

}  // namespace

extern constinit const Kernels portable{
    "portable", round_fine, round_one_of_many, packed_row, packed_rows, dense_row, dense_rows, attend, improve};

}  // namespace kernels
