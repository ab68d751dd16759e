// A product over many pieces: rounds the activations, cuts the outputs, calls the kernels; knows nothing of MLX.
#include "products.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <vector>

#include "pool.h"

namespace kernels {
namespace {

constexpr int64_t FEW_ROWS = 4;              // up to here a product is bound by memory, and finely rounded
constexpr int64_t PIECE_BYTES = 48 * 1024;   // of weights: about a microsecond and a half of one core
constexpr int64_t PIECES_PER_THREAD = 4;     // of a small product, so that a late thread finds something left

std::atomic<int> planes{2};

constexpr int64_t ATTENTION_ROWS = 48;       // queries that share a tile of keys while it is in the L1 and L2 caches

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// Memory that grows and stays, one per thread: a product allocates nothing once it has been as large before.
template <int WHICH>
char* workspace(size_t bytes) {
  thread_local std::unique_ptr<void, Free> memory;
  thread_local size_t size = 0;
  if (size < bytes) {
    size = round_up(static_cast<int64_t>(bytes), 4096);
    memory.reset(std::aligned_alloc(64, size));
  }
  return static_cast<char*>(memory.get());
}

// Calls piece(n0, n1) for ranges of outputs that begin at multiples of `step`.
template <typename Piece>
void cut(int64_t n_out, int64_t row_bytes, int64_t step, Piece&& piece) {
  const int64_t fair = n_out / (PIECES_PER_THREAD * threads());
  const int64_t size = round_up(std::max<int64_t>(1, std::min(PIECE_BYTES / row_bytes, fair)), step);
  parallel((n_out + size - 1) / size, [&](int64_t i) { piece(i * size, std::min(n_out, (i + 1) * size)); });
}

// Calls use(w', shift, n0, n1) with weights of 4 or 8 bits: themselves, or rows [n0, n1) as 8 bits, where output n is
// n - shift.
template <typename Use>
void with_known_width(const Packed& w, int64_t n0, int64_t n1, Use&& use) {
  if (w.bits == 4 || w.bits == 8 || active().packed_row == portable().packed_row) return use(w, 0, n0, n1);
  const int64_t step = TILE;
  for (int64_t n = n0; n < n1; n += step) {
    const int64_t end = std::min(n + step, n1), first = n * w.groups() * (w.type == Float::f32 ? 4 : 2);
    uint8_t* codes = reinterpret_cast<uint8_t*>(workspace<1>(step * w.n_in));
    widen(w, n, end, codes);
    const Packed part{codes, static_cast<const char*>(w.scales) + first, static_cast<const char*>(w.biases) + first,
                      w.type, 8, w.group, end - n, w.n_in};
    use(part, n, int64_t{0}, end - n);
  }
}

struct Layout {  // of the rounded rows in one workspace
  int64_t code_bytes, group_stride;

  Layout(const Packed& w, int64_t bytes) : code_bytes(round_up(bytes, 64)), group_stride(round_up(w.groups(), GROUP_BLOCK)) {}
  int64_t row_bytes() const { return code_bytes + 2 * group_stride * static_cast<int64_t>(sizeof(float)); }
};

void multiply_few(const Packed& w, const float* x, int64_t rows, float* y) {
  const Layout layout(w, fine_bytes(w.n_in));
  char* memory = workspace<0>(rows * layout.row_bytes());
  Packed known = w;
  if (w.bits != 4) known.bits = 8;
  Fine fine[FEW_ROWS];
  for (int64_t row = 0; row < rows; ++row) {
    char* at = memory + row * layout.row_bytes();
    float* scales = reinterpret_cast<float*>(at + layout.code_bytes);
    fine[row] = {reinterpret_cast<int8_t*>(at), scales, scales + layout.group_stride};
    active().round_fine(x + row * w.n_in, known, fine[row]);
  }
  cut(w.n_out, w.row_bytes(), 4, [&](int64_t n0, int64_t n1) {
    with_known_width(w, n0, n1, [&](const Packed& part, int64_t shift, int64_t i0, int64_t i1) {
      for (int64_t row = 0; row < rows; ++row) active().packed_row(part, fine[row], y + row * w.n_out + shift, i0, i1);
    });
  });
}

void multiply_many(const Packed& w, const float* x, int64_t rows, float* y) {
  const int n_planes = planes;
  const int64_t padded = round_up(rows, ROW_BLOCK);
  const Layout layout(w, n_planes * plane_stride(w.n_in));
  char* memory = workspace<0>(padded * layout.row_bytes());
  float* scales = reinterpret_cast<float*>(memory + padded * layout.code_bytes);
  const Rows rounded{reinterpret_cast<int8_t*>(memory), scales, scales + padded * layout.group_stride, rows,
                     plane_stride(w.n_in), layout.group_stride, n_planes};
  parallel(rows, [&](int64_t row) { active().round_rows(x + row * w.n_in, w, rounded, row); });
  parallel((w.n_out + TILE - 1) / TILE, [&](int64_t i) {
    char* scratch = workspace<2>(SCRATCH);
    with_known_width(w, i * TILE, std::min(w.n_out, (i + 1) * TILE), [&](const Packed& part, int64_t shift, int64_t i0, int64_t i1) {
      active().packed_rows(part, rounded, y + shift, w.n_out, i0, i1, scratch);
    });
  });
}

}  // namespace

void attend_all(const Attention& a) {
  const int64_t repeats = a.heads / a.kv_heads, step = std::min(a.queries, std::max<int64_t>(1, ATTENTION_ROWS / repeats));
  const int64_t blocks = (a.queries + step - 1) / step;
  parallel(a.batch * a.kv_heads * blocks, [&](int64_t i) {
    const int64_t block = blocks - 1 - i % blocks, head = i / blocks;  // the last positions have the most to do
    float* scratch = reinterpret_cast<float*>(workspace<2>(attention_scratch(repeats * step, a.head_dim)));
    active().attend(a, head / a.kv_heads, head % a.kv_heads, block * step, std::min(step, a.queries - block * step), scratch);
  });
}

void set_planes(int n) { planes = n; }

void multiply(const Packed& w, const float* x, int64_t rows, float* y) {
  (rows <= FEW_ROWS ? multiply_few : multiply_many)(w, x, rows, y);
}

void multiply(const Dense& w, const float* x, int64_t rows, float* y) {
  if (rows <= FEW_ROWS)
    cut(w.n_out, w.n_in * (w.type == Float::f32 ? 4 : 2), 4, [&](int64_t n0, int64_t n1) {
      for (int64_t row = 0; row < rows; ++row) active().dense_row(w, x + row * w.n_in, y + row * w.n_out, n0, n1);
    });
  else
    parallel((w.n_out + TILE - 1) / TILE, [&](int64_t i) {
      active().dense_rows(w, x, rows, y, w.n_out, i * TILE, std::min(w.n_out, (i + 1) * TILE), workspace<2>(SCRATCH));
    });
}

}  // namespace kernels
