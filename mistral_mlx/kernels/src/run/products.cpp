// Products on all threads, see products.h: a few rows are bound by memory, many rows by arithmetic.
#include "products.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "../parts/scalars.h"
#include "pool.h"
#include "steps.h"
#include "workspace.h"

namespace kernels {
namespace {

constexpr int64_t FEW_ROWS = 8;              // up to here a product is bound by memory, and finely rounded
constexpr int64_t PIECE_BYTES = 512 * 1024;  // of weights: some 30 microseconds of one core
constexpr int64_t PIECES_PER_THREAD = 4;     // of a small product, so that a late thread finds something left
constexpr int64_t ATTENTION_ROWS = 48;       // queries that share a tile of keys while it is in the L1 and L2 caches

std::atomic<int> planes{2};

int64_t row_bytes(const Matrix& w) {
  if (const Packed* packed = std::get_if<Packed>(&w)) return packed->row_bytes();
  return std::get<Dense>(w).n_in * float_bytes(std::get<Dense>(w).type);
}

// The rows of a product as its matrices want them: rounded once for those of the same width and group.
class Inputs {
 public:
  Inputs(const Products& p, const float* x) : x_(x), rows_(p.rows), few_(p.rows <= FEW_ROWS) {
    for (const Matrix& w : p.weights) {
      const Packed* packed = std::get_if<Packed>(&w);
      sources_.push_back(packed == nullptr ? -1 : find(*packed));
    }
    int64_t bytes = 0;
    for (const Packed& w : kinds_) bytes += size_of(w);
    char* memory = workspace<Slot::rounded>(bytes);
    for (const Packed& w : kinds_) few_ ? round_few(w, memory) : round_many(w, memory), memory += size_of(w);
  }

  // y[row * stride + n] for all rows and n in [n0, n1) of matrix i.
  void multiply(const Matrix& w, size_t i, float* y, int64_t stride, int64_t n0, int64_t n1) const {
    if (const Packed* packed = std::get_if<Packed>(&w); packed != nullptr && few_)
      for (int64_t row = 0; row < rows_; ++row)
        active().packed_row(*packed, fine_[sources_[i]][row], y + row * stride, n0, n1);
    else if (packed != nullptr)
      active().packed_rows(*packed, many_[sources_[i]], y, stride, n0, n1, workspace<Slot::scratch>(SCRATCH));
    else if (const Dense& dense = std::get<Dense>(w); few_)
      for (int64_t row = 0; row < rows_; ++row)
        active().dense_row(dense, x_ + row * dense.n_in, y + row * stride, n0, n1);
    else
      active().dense_rows(dense, x_, rows_, y, stride, n0, n1, workspace<Slot::scratch>(SCRATCH));
  }

 private:
  static int form(const Packed& w) { return w.bits == 4 || w.bits == 8 ? w.bits : 0; }  // of the rounded rows

  int find(const Packed& w) {
    for (size_t i = 0; i < kinds_.size(); ++i)
      if (kinds_[i].group == w.group && form(kinds_[i]) == form(w)) return static_cast<int>(i);
    kinds_.push_back(w);
    return static_cast<int>(kinds_.size()) - 1;
  }

  int64_t padded_rows() const { return few_ ? rows_ : round_up(rows_, ROW_BLOCK); }
  int64_t code_bytes(const Packed& w) const {
    return few_ ? round_up(fine_bytes(w.n_in), 64) : planes_ * plane_stride(w.n_in);
  }
  static int64_t group_stride(const Packed& w) { return round_up(w.groups(), GROUP_BLOCK); }
  int64_t size_of(const Packed& w) const {
    return round_up(padded_rows() * (code_bytes(w) + 2 * group_stride(w) * static_cast<int64_t>(sizeof(float))), 64);
  }

  void round_few(const Packed& w, char* memory) {
    std::array<Fine, FEW_ROWS>& rounded = fine_.emplace_back();
    float* scales = reinterpret_cast<float*>(memory + rows_ * code_bytes(w));
    for (int64_t row = 0; row < rows_; ++row, scales += 2 * group_stride(w)) {
      rounded[row] = {reinterpret_cast<int8_t*>(memory + row * code_bytes(w)), scales, scales + group_stride(w)};
      active().round_fine(x_ + row * w.n_in, w, rounded[row]);
    }
  }

  void round_many(const Packed& w, char* memory) {
    float* scales = reinterpret_cast<float*>(memory + padded_rows() * code_bytes(w));
    const Rows rounded{reinterpret_cast<int8_t*>(memory),
                       scales,
                       scales + padded_rows() * group_stride(w),
                       rows_,
                       plane_stride(w.n_in),
                       group_stride(w),
                       planes_};
    parallel(rows_, [&](int64_t row) { active().round_rows(x_ + row * w.n_in, w, rounded, row); });
    many_.push_back(rounded);
  }

  const float* x_;
  int64_t rows_;
  bool few_;
  int planes_ = planes;
  std::vector<int> sources_;   // per matrix: which of the rounded rows below, -1 for a dense one
  std::vector<Packed> kinds_;  // the first matrix of each width and group
  std::vector<std::array<Fine, FEW_ROWS>> fine_;
  std::vector<Rows> many_;
};

// The outputs of one matrix in ranges that a thread takes at a time.
struct Cut {
  int64_t n_out, size;

  Cut(const Matrix& w, int64_t rows, int64_t total_outputs) : n_out(outputs_of(w)), size(TILE) {
    if (rows > FEW_ROWS) return;
    const int64_t fair = total_outputs / (PIECES_PER_THREAD * threads());
    size = round_up(std::max<int64_t>(1, std::min(PIECE_BYTES / row_bytes(w), fair)), 4);
  }
  int64_t pieces() const { return (n_out + size - 1) / size; }
};

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
    for (int64_t row = 0; row < p.rows; ++row) silu_times(p.y[0] + row * n_out + n0, up + row * width, width);
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
  int64_t total = 0, pieces = 0;
  for (size_t i = 0; i < n; ++i) total += outputs_of(p.weights[i]);
  std::vector<Cut> cuts;
  for (size_t i = 0; i < n; ++i) pieces += cuts.emplace_back(p.weights[i], p.rows, total).pieces();
  parallel(pieces, [&](int64_t piece) {
    size_t i = 0;
    for (; piece >= cuts[i].pieces(); ++i) piece -= cuts[i].pieces();
    compute_range(p, inputs, i, piece * cuts[i].size, std::min(cuts[i].n_out, (piece + 1) * cuts[i].size));
  });
}

void attend_all(const Attention& a) {
  const int64_t repeats = a.heads / a.kv_heads,
                step = std::min(a.queries, std::max<int64_t>(1, ATTENTION_ROWS / repeats));
  const int64_t blocks = (a.queries + step - 1) / step;
  parallel(a.batch * a.kv_heads * blocks, [&](int64_t i) {
    const int64_t block = blocks - 1 - i % blocks, head = i / blocks;  // the last positions have the most to do
    float* scratch = reinterpret_cast<float*>(workspace<Slot::scratch>(attention_scratch(repeats * step, a.head_dim)));
    active().attend(a, head / a.kv_heads, head % a.kv_heads, block * step, std::min(step, a.queries - block * step),
                    scratch);
  });
}

void set_planes(int n) { planes = n; }

}  // namespace kernels
