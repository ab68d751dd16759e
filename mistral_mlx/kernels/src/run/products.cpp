// Products on all threads, see products.h: a few rows are bound by memory, many rows by arithmetic.
#include "products.h"

#include <algorithm>
#include <atomic>

#include "panels.h"
#include "pool.h"
#include "steps.h"
#include "workspace.h"

namespace kernels {
namespace {

std::atomic<bool> exact_codes{false};

// The shape of packed weights, also of those that are not in panels; nothing: of plain ones.
std::optional<Panels> packed_shape(const Matrix& w) {
  if (const Panels* panels = std::get_if<Panels>(&w)) return *panels;
  if (const Packed* packed = std::get_if<Packed>(&w)) return shape_of(*packed);
  return {};
}

// As Kernels::few, of weights that are put in panels, TILE outputs at a time, before they are multiplied.
void multiply_packed(decltype(Kernels::few) product, const Packed& w, const Rounded& x, float* y, int64_t stride,
                     int64_t n0, int64_t n1) {
  Panels panels = shape_of(w);
  uint8_t* memory = reinterpret_cast<uint8_t*>(workspace<Slot::panels>(TILE / PANEL * panels.bytes()));
  panels.data = memory;
  for (int64_t n = n0; n < n1; n += TILE) {
    const int64_t width = std::min(TILE, n1 - n);
    make_panels(w, n, n + width, memory);
    product(panels, x, y + n, stride, 0, width, workspace<Slot::scratch>(SCRATCH));
  }
}

// The rows of a product as its matrices want them: rounded once for those of the same bits and group.
class Inputs {
 public:
  Inputs(const Products& p, const float* x)
      : x_(x), rows_(p.rows), few_(p.rows <= active().few_rows), exact_(p.exact || exact()) {
    int64_t bytes = 0;
    for (const Matrix& w : p.weights) {
      const auto packed = packed_shape(w);
      sources_.push_back(packed ? find(*packed) : find(std::get<Dense>(w)));
    }
    for (const Panels& w : kinds_) bytes += size_of(w);
    for (const DenseRows& rows : dense_) bytes += size_of(rows);
    char* memory = workspace<Slot::rounded>(bytes);
    for (const Panels& w : kinds_) round(w, memory), memory += size_of(w);
    for (DenseRows& rows : dense_) place(rows, inputs_of(p.weights[0]), memory), memory += size_of(rows);
  }

  // y[row * stride + n] for all rows and n in [n0, n1) of matrix i.
  void multiply(const Matrix& w, size_t i, float* y, int64_t stride, int64_t n0, int64_t n1) const {
    const auto product = few_ ? active().few : active().many;
    if (const Panels* panels = std::get_if<Panels>(&w))
      product(*panels, rounded_[sources_[i]], y, stride, n0, n1, workspace<Slot::scratch>(SCRATCH));
    else if (const Packed* packed = std::get_if<Packed>(&w))
      multiply_packed(product, *packed, rounded_[sources_[i]], y, stride, n0, n1);
    else
      active().dense(std::get<Dense>(w), dense_[sources_[i]], y, stride, n0, n1,
                     workspace<Slot::scratch>(dense_scratch(inputs_of(w))));
  }

 private:
  int find(const Panels& w) {
    for (size_t i = 0; i < kinds_.size(); ++i)
      if (kinds_[i].group == w.group && kinds_[i].bits == w.bits) return static_cast<int>(i);
    kinds_.push_back(w);
    return static_cast<int>(kinds_.size()) - 1;
  }

  int find(const Dense& w) {
    const Float type = w.type == Float::bf16 && active().dots && !exact_ ? Float::bf16 : Float::f32;
    for (size_t i = 0; i < dense_.size(); ++i)
      if (dense_[i].type == type) return static_cast<int>(i);
    dense_.push_back({nullptr, type, rows_, dense_stride(w.n_in, type)});
    return static_cast<int>(dense_.size()) - 1;
  }

  int points_of(const Panels& w) const { return exact_ ? 1 : rotated_points(w.bits); }
  int64_t padded_rows() const { return few_ ? rows_ : round_up(rows_, ROW_BLOCK); }
  int64_t stride_of(const Panels& w) const {
    return code_stride(w.n_in, few_ || points_of(w) == 1 ? 2 : active().rotated_bytes);
  }
  static int64_t group_stride(const Panels& w) { return round_up(w.groups(), GROUP_BLOCK); }
  int64_t size_of(const Panels& w) const {
    return round_up(padded_rows() * (stride_of(w) + 3 * group_stride(w) * static_cast<int64_t>(sizeof(float))), 64);
  }

  void round(const Panels& w, char* memory) {
    const int64_t lines = padded_rows() * group_stride(w);
    float* scales = reinterpret_cast<float*>(memory + padded_rows() * stride_of(w));
    const Rounded& rounded = rounded_.emplace_back(Rounded{reinterpret_cast<uint8_t*>(memory), scales, scales + lines,
                                                           reinterpret_cast<int32_t*>(scales + 2 * lines), rows_,
                                                           stride_of(w), group_stride(w), points_of(w)});
    const auto round_one = few_ ? active().round_few : active().round_many;
    parallel(rows_, [&](int64_t row) { round_one(x_ + row * w.n_in, w, rounded, row); });
  }

  static int64_t size_of(const DenseRows& rows) { return rows.rows * rows.stride * float_bytes(rows.type); }

  void place(DenseRows& rows, int64_t n_in, char* memory) {
    rows.x = memory;
    const int64_t bytes = rows.stride * float_bytes(rows.type);
    parallel(rows_, [&](int64_t row) { active().place_dense(x_ + row * n_in, n_in, rows.type, memory + row * bytes); });
  }

  const float* x_;
  int64_t rows_;
  bool few_, exact_;
  std::vector<int> sources_;   // per matrix: which of the rows below
  std::vector<Panels> kinds_;  // the first matrix of each width and group
  std::vector<Rounded> rounded_;
  std::vector<DenseRows> dense_;
};

// Outputs that a thread takes at a time. Many rows do not stay in the cache from one piece to the next.
int64_t piece_of(const Matrix& w, int64_t rows) {
  constexpr int64_t PIECES_PER_THREAD = 8, MOST = 8 * TILE;
  if (rows <= active().few_rows) return TILE;
  return std::clamp(outputs_of(w) / (PIECES_PER_THREAD * threads()) / TILE * TILE, TILE, MOST);
}

// One range of outputs with what comes after the product.
void compute_range(const Products& p, const Inputs& inputs, size_t i, int64_t n0, int64_t n1) {
  const int64_t n_out = outputs_of(p.weights[i]), width = n1 - n0;
  inputs.multiply(p.weights[i], i, p.y[i], n_out, n0, n1);
  if (p.then == Products::ADD)
    for (int64_t row = 0; row < p.rows; ++row)
      for (int64_t n = row * n_out + n0; n < row * n_out + n1; ++n) p.y[0][n] += p.residual[n];
  if (p.then == Products::SWIGLU) {
    float* up = reinterpret_cast<float*>(workspace<Slot::second>(p.rows * width * static_cast<int64_t>(sizeof(float))));
    inputs.multiply(p.weights[1], 1, up - n0, width, n0, n1);
    for (int64_t row = 0; row < p.rows; ++row) active().silu_times(p.y[0] + row * n_out + n0, up + row * width, width);
  }
}

}  // namespace

void compute(const Products& p) {
  const int64_t n_in = inputs_of(p.weights[0]);
  const float* x = p.x;
  if (p.norm) {
    float* normalized =
        reinterpret_cast<float*>(workspace<Slot::normalized>(p.rows * n_in * static_cast<int64_t>(sizeof(float))));
    rms_norm(p.x, *p.norm, p.rows, n_in, normalized);
    x = normalized;
  }
  const Inputs inputs(p, x);
  const size_t n = p.then == Products::SWIGLU ? 1 : p.weights.size();  // the second of two goes with the first
  std::vector<int64_t> sizes, counts;
  int64_t pieces = 0;
  for (size_t i = 0; i < n; ++i) {
    sizes.push_back(piece_of(p.weights[i], p.rows));
    pieces += counts.emplace_back((outputs_of(p.weights[i]) + sizes[i] - 1) / sizes[i]);
  }
  parallel(pieces, [&](int64_t piece) {
    size_t i = 0;
    for (; piece >= counts[i]; ++i) piece -= counts[i];
    compute_range(p, inputs, i, piece * sizes[i], std::min(outputs_of(p.weights[i]), (piece + 1) * sizes[i]));
  });
}

void set_exact(bool on) { exact_codes = on; }

bool exact() { return exact_codes; }

}  // namespace kernels
