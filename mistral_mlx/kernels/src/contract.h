// The contract of the CPU kernels: plain functions over raw pointers, one table of them per instruction set.
// Knows nothing of MLX, Python or threads. Every file of this folder points here for the layout.
//
// Packed weights, as MLX's affine mode stores them, [n_out, n_in]:
//
//     one row, 4 bits:  | word 0                            | word 1 ...      uint32, little endian, so that byte j
//                       | q7 q6 q5 q4 q3 q2 q1 q0           |                 holds q(2j) in its low, q(2j+1) in its
//                         high bits             low bits                      high half
//     8 bits:           byte k is q(k);   2, 3, 5, 6 bits: a stream of bits, low bits first, across word borders
//     scales, biases:   [n_out, n_in / group], group = 32, 64 or 128 inputs
//
//     w(n, k) = scale(n, k / group) * q(n, k) + bias(n, k / group)
//
// A row of weights starts on any byte (a mapped file): only unaligned loads. n_in is a multiple of the group, and of
// nothing else; nothing may be read behind the last row.
//
// Activations are float32. Before they meet packed weights they are rounded, group by group, x ~ scale * code, and the
// bias is multiplied by the sum of the *rounded* ones, so that the product is exactly W times the rounded vector. With
// the code `zero` in the middle of those of the weights, 2^(bits - 1), one output is, in this order of float32
// operations, each written as fma:
//
//     for each group:  y += float(sum of (q - zero) * code) * (scale(n) * x scale)      the sum in exact integers
//                      y += (bias(n) + zero * scale(n)) * (x scale * sum of codes)
//
// So the bits of an output depend on its weights and its activations alone: not on the number of rows, of threads, on
// the range [n0, n1) of a call, or on the instruction set.
//
// Exact codes, |code| <= FINE_LIMIT, lose nothing that can be noticed. By default codes are rotated (after QuaRot,
// Ashkboos et al., 2024, but of integers): the Walsh-Hadamard transform H of a few inputs spreads an outlier over all
// of them, t = H x / points; t is rounded to 8 bits, |c| <= COARSE_LIMIT, and the codes are H c. As
//
//     sum of (q - zero) * (H c)  =  sum of H(q - zero) * c
//
// holds in integers, and H(q - zero) fits 8 bits for as many points as rotated_points() says, many rows multiply bytes
// by bytes; a few rows leave the weights as they are and multiply by H c. Both give the same sum. A group that holds a
// NaN or an infinity has the scale NaN.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace kernels {

enum class Float { f32, f16, bf16, q8 };  // q8: codes of 8 bits, of keys and values alone, see Attention

struct Packed {
  const uint8_t* codes;
  const void* scales;
  const void* biases;
  Float type;  // of scales and biases
  int bits, group;
  int64_t n_out, n_in;

  int64_t groups() const { return n_in / group; }
  int64_t row_bytes() const { return n_in * bits / 8; }
};

constexpr int64_t float_bytes(Float type) { return type == Float::f32 ? 4 : type == Float::q8 ? 1 : 2; }

// The same weights as the kernels read them: in panels of PANEL outputs, one stretch of memory each. A panel holds,
// group by group, the words of the group, [group * bits / 32][PANEL], then its scales and its biases, [PANEL] each.
// What stands for outputs behind the last one is 0. run/panels.h makes them.
constexpr int64_t PANEL = 16;
struct Panels {
  const uint8_t* data;
  Float type;  // of scales and biases
  int bits, group;
  int64_t n_out, n_in;

  int64_t groups() const { return n_in / group; }
  int64_t code_bytes() const { return PANEL * group * bits / 8; }                       // of a group
  int64_t group_bytes() const { return code_bytes() + 2 * PANEL * float_bytes(type); }  // a multiple of 64
  int64_t bytes() const { return groups() * group_bytes(); }                            // of a panel
  int zero() const { return 1 << (bits - 1); }
};

struct Dense {
  const void* weights;  // [n_out, n_in]
  Float type;
  int64_t n_out, n_in;
};

constexpr int FINE_LIMIT = 32639;  // 127 * 256 + 127
constexpr int COARSE_LIMIT = 127;
constexpr int64_t BLOCK = 128;       // codes of a row are zero-padded to a multiple of this
constexpr int64_t GROUP_BLOCK = 16;  // what is kept per group is zero-padded to a multiple of this

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Points of the transform for weights of `bits`; 1: codes are exact, as 8 bits leave no room. It runs over the inputs
// that differ only in certain bits of their number within 32: bits 0, 2, 3 and 4 for 16 points, 2, 3 and 4 for 8
// points, 3 and 4 for 4 points.
constexpr int rotated_points(int bits) { return bits <= 4 ? 16 : bits == 5 ? 8 : bits == 6 ? 4 : 1; }

// Rows as their matrices want them.
struct Rounded {
  uint8_t* codes;   // [rows, stride] bytes, in the order and form that the instruction set likes
  float* scales;    // [rows, group_stride]
  float* sums;      // the same: scale * sum of codes
  int32_t* totals;  // the same: zero * sum of codes
  int64_t rows, stride, group_stride;
  int points;  // 1: exact codes
};
// Bytes of a row. 64 bytes more than needed, or all rows of a tile would fall into one set of the L1 cache.
inline int64_t code_stride(int64_t n_in, int bytes_of_code) { return bytes_of_code * round_up(n_in, BLOCK) + 64; }
constexpr int64_t ROW_BLOCK = 16;  // Rounded has memory, not values, for a multiple of this many rows

// Rows that Dense weights multiply: float32, or rounded to bfloat16 for weights of bfloat16. Zeros lie behind a row.
struct DenseRows {
  const void* x;  // [rows, stride], 64-byte aligned
  Float type;     // f32 or bf16
  int64_t rows, stride;
};
// 64 bytes more than whole vectors, or all rows of a tile would fall into one set of the L1 cache.
inline int64_t dense_stride(int64_t n_in, Float type) {
  return type == Float::f32 ? round_up(n_in, 32) + 16 : round_up(n_in, 64) + 32;
}

constexpr int64_t TILE = 32;           // outputs of `many` and `dense` are computed in blocks of this many
constexpr size_t SCRATCH = 64 * 1024;  // bytes of scratch that `few` and `many` may use
// Bytes of scratch that dense may use: a vector for each of TILE sums of DENSE_ROWS rows, and TILE rows of float32 in
// blocks of 2 or 4 KB, with 64 bytes to spare.
constexpr int64_t DENSE_ROWS = 54;
inline int64_t dense_scratch(int64_t n_in) { return TILE * (DENSE_ROWS * 64 + (n_in / 512 + 2) * (2048 + 64)); }

// Queries [batch, heads, queries, head_dim], keys and values [batch, kv_heads, keys or slots, head_dim], each with
// strides in elements, the last of them 1. The query i stands at position + i; it sees the keys at its own position and
// at window - 1 positions before it, but none before `first`; a window of 0 has no end. The result is
// [batch, queries, heads, head_dim], in order but for the stride of the batch.
//
// Where slots is 0, the key of position p lies in row p - first. Else it lies in slot p % slots, and slots is a
// multiple of KEYS: a tile, which begins at a multiple of KEYS, never wraps. Slots that no query sees must hold finite
// numbers.
//
// The first keys of all can stay in sight (attention sinks, Xiao et al., 2023): those of positions [0, sinks) lie once
// more in rows before the others, and the query at p sees them there as soon as its window has left them behind.
//
// Rows of type q8 are head_dim codes of 8 bits, signed, and a float32 scale behind them that they are multiplied by:
// the score of a key, and the weight of a value, in place of each element. What multiplies the keys must be turned as
// they were (run/codes.h).
struct Attention {
  const float* q;
  const void* k;
  const void* v;
  float* out;
  Float type;  // of keys and values
  int64_t batch, heads, kv_heads, queries, head_dim;
  int64_t position, first, slots;
  int64_t q_strides[3], k_strides[3], v_strides[3];
  int64_t out_stride;  // of a row of the batch
  int64_t window;
  float scale;
  int64_t sinks = 0;
};
constexpr int SEARCH_GROUPS = 16;   // that are improved side by side
constexpr int64_t KEYS = 64;        // in a tile; sinks are no more
constexpr int64_t SCALE_BYTES = 4;  // behind the codes of a row
inline int64_t row_elements(int64_t head_dim, Float type) { return head_dim + (type == Float::q8 ? SCALE_BYTES : 0); }
inline int64_t padded_head(int64_t head_dim) { return round_up(head_dim, 16); }
inline int64_t attention_scratch(int64_t rows, int64_t head_dim) {
  return ((2 * KEYS + 2 * rows) * padded_head(head_dim) + 2 * rows) * static_cast<int64_t>(sizeof(float));
}

struct Kernels {
  const char* name;
  int64_t few_rows;   // up to here `few` is faster than `many`
  int rotated_bytes;  // of a rotated code, for many rows
  // Round a row. A code takes 2 bytes for a few rows, and where it is exact.
  void (*round_few)(const float* x, const Panels& w, const Rounded& out, int64_t row);
  void (*round_many)(const float* x, const Panels& w, const Rounded& out, int64_t row);
  // y[row * y_stride + n] for all rows and n in [n0, n1), n0 a multiple of TILE; scratch is 64-byte aligned.
  void (*few)(const Panels& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void* scratch);
  void (*many)(const Panels& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void* scratch);
  bool dots;  // whether weights of bfloat16 are multiplied by activations that are rounded to bfloat16
  // A row for `dense` as float32 or bfloat16, with the zeros behind it up to dense_stride.
  void (*place_dense)(const float* x, int64_t n_in, Float type, void* out);
  // The same product. The order of additions into an output depends on n_in alone.
  void (*dense)(const Dense& w, const DenseRows& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void* scratch);
  // All query heads of a key head at positions [position, position + n_positions) of the queries.
  void (*attend)(const Attention& a, int64_t batch, int64_t kv_head, int64_t position, int64_t n_positions,
                 float* scratch);
  // silu(gate) * up, into gate.
  void (*silu_times)(float* gate, const float* up, int64_t n);
  // Replaces scales and biases of SEARCH_GROUPS groups by others of `type`, where it finds some, whose nearest codes
  // give a smaller sum of importance * (w - unpacked)^2 than the given codes do, and returns the bits of those whose
  // codes are to be made anew. Weights, codes and importance (null: 1) are [group, SEARCH_GROUPS]. The same bits in
  // every table.
  uint32_t (*improve)(const float* weights, const float* importance, int group, int bits, Float type,
                      const float* codes, float* scales, float* biases);
};

// The table in use: the best one that this CPU can run, until select() names another one.
const Kernels& active();
// Use the table of that name; returns false if this CPU cannot run it or there is no such name.
bool select(const std::string& name);
// The names of all tables that this CPU can run, the best one first.
std::vector<std::string> sets();

}  // namespace kernels
