// Weights in panels, see panels.h.
#include "panels.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <stdexcept>

#include "../parts/scalars.h"
#include "large_pages.h"
#include "pool.h"

namespace kernels {
namespace {

constexpr int64_t COPIED_BYTES = 1 << 18;  // of plain weights in one piece of work

typedef uint32_t Four __attribute__((vector_size(16)));

Four four_at(const uint8_t* p) {
  Four v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// Turns four words of each of four rows into four rows of PANEL words.
void turn_words(const uint8_t* from, int64_t row_bytes, uint8_t* to) {
  const Four a = four_at(from), b = four_at(from + row_bytes), c = four_at(from + 2 * row_bytes),
             d = four_at(from + 3 * row_bytes);
  const Four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Four ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7), cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const Four turned[] = {__builtin_shufflevector(ab, cd, 0, 1, 4, 5), __builtin_shufflevector(ab, cd, 2, 3, 6, 7),
                         __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5), __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7)};
  for (int i = 0; i < 4; ++i) std::memcpy(to + i * 4 * PANEL, &turned[i], sizeof turned[i]);
}

// The words of a group of four outputs.
void turn_group(const uint8_t* from, int64_t row_bytes, int64_t n_words, uint8_t* to) {
  int64_t word = 0;
  for (; word + 4 <= n_words; word += 4) turn_words(from + 4 * word, row_bytes, to + word * 4 * PANEL);
  for (; word < n_words; ++word)
    for (int64_t i = 0; i < 4; ++i) std::memcpy(to + (word * PANEL + i) * 4, from + i * row_bytes + 4 * word, 4);
}

template <typename T>
void turn_floats(const void* from, int64_t stride, int64_t n_rows, uint8_t* to) {
  for (int64_t i = 0; i < n_rows; ++i)
    std::memcpy(to + i * sizeof(T), static_cast<const char*>(from) + i * stride * sizeof(T), sizeof(T));
}

// A panel of n_rows outputs from n on.
template <typename T>
void make_panel(const Packed& w, const Panels& shape, int64_t n, int64_t n_rows, uint8_t* out) {
  const int64_t row_bytes = w.row_bytes(), words = w.group * w.bits / 32;
  if (n_rows < PANEL) std::memset(out, 0, shape.bytes());
  for (int64_t g = 0; g < w.groups(); ++g, out += shape.group_bytes()) {
    const uint8_t* codes = w.codes + n * row_bytes + g * 4 * words;
    int64_t row = 0;
    for (; row + 4 <= n_rows; row += 4) turn_group(codes + row * row_bytes, row_bytes, words, out + 4 * row);
    for (; row < n_rows; ++row)
      for (int64_t i = 0; i < words; ++i) std::memcpy(out + (i * PANEL + row) * 4, codes + row * row_bytes + 4 * i, 4);
    const int64_t at = (n * w.groups() + g) * sizeof(T);
    uint8_t* floats = out + shape.code_bytes();
    turn_floats<T>(static_cast<const char*>(w.scales) + at, w.groups(), n_rows, floats);
    turn_floats<T>(static_cast<const char*>(w.biases) + at, w.groups(), n_rows, floats + PANEL * sizeof(T));
  }
}

int64_t bytes_of(const Matrix& w) {
  if (const Packed* packed = std::get_if<Packed>(&w))
    return round_up(packed->n_out, TILE) / PANEL * shape_of(*packed).bytes();
  const Dense& dense = std::get<Dense>(w);
  return round_up(dense.n_out * dense.n_in * float_bytes(dense.type), 64);
}

Matrix copy(const Matrix& w, uint8_t* to) {
  if (const Packed* packed = std::get_if<Packed>(&w)) {
    Panels panels = shape_of(*packed);
    panels.data = to;
    parallel((packed->n_out + PANEL - 1) / PANEL, [&](int64_t i) {
      make_panels(*packed, i * PANEL, std::min(packed->n_out, (i + 1) * PANEL), to + i * panels.bytes());
    });
    return panels;
  }
  Dense dense = std::get<Dense>(w);
  const int64_t n = dense.n_out * dense.n_in * float_bytes(dense.type);
  const uint8_t* from = static_cast<const uint8_t*>(dense.weights);
  parallel((n + COPIED_BYTES - 1) / COPIED_BYTES, [&](int64_t i) {
    std::memcpy(to + i * COPIED_BYTES, from + i * COPIED_BYTES, std::min(COPIED_BYTES, n - i * COPIED_BYTES));
  });
  dense.weights = to;
  return dense;
}

// Memory in large pages. What is small shares a chunk with others, or much of a page would be left over; it is freed
// with the last of them.
std::shared_ptr<uint8_t> allocate(int64_t bytes) {
  constexpr int64_t CHUNK = 16 * LARGE_PAGE;
  static std::mutex mutex;
  static std::weak_ptr<uint8_t> chunk;
  static int64_t used = 0;
  const std::lock_guard lock(mutex);
  std::shared_ptr<uint8_t> memory = chunk.lock();
  if (memory == nullptr || used + bytes > CHUNK) {
    if (bytes > CHUNK / 2) return large_memory(round_up(bytes, LARGE_PAGE));
    chunk = memory = large_memory(CHUNK);
    used = 0;
  }
  const std::shared_ptr<uint8_t> part(memory, memory.get() + used);
  used += bytes;
  return part;
}

}  // namespace

std::shared_ptr<uint8_t> large_memory(int64_t bytes) {
  const size_t size = static_cast<size_t>(bytes + LARGE_PAGE);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  const uintptr_t start = (reinterpret_cast<uintptr_t>(memory) + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
  uint8_t* aligned = reinterpret_cast<uint8_t*>(start);
  ask_for_large_pages(aligned, bytes);
  return {aligned, [memory, size](uint8_t*) { munmap(memory, size); }};
}

void make_panels(const Packed& w, int64_t n0, int64_t n1, uint8_t* out) {
  const Panels shape = shape_of(w);
  for (int64_t n = n0; n < n1; n += PANEL, out += shape.bytes())
    (w.type == Float::f32 ? make_panel<uint32_t> : make_panel<uint16_t>)(w, shape, n, std::min(PANEL, n1 - n), out);
}

Copies copied(const std::vector<Matrix>& matrices) {
  int64_t bytes = 0;
  for (const Matrix& w : matrices) bytes += bytes_of(w);
  const std::shared_ptr<uint8_t> memory = allocate(bytes);
  Copies copies{{}, memory};
  uint8_t* at = memory.get();
  for (const Matrix& w : matrices) copies.matrices.push_back(copy(w, at)), at += bytes_of(w);
  return copies;
}

void unpack_row(const Matrix& w, int64_t row, float* out) {
  if (row < 0 || row >= outputs_of(w)) throw std::out_of_range("an id is not in the table");
  if (const Dense* dense = std::get_if<Dense>(&w)) {
    for (int64_t k = 0; k < dense->n_in; ++k) out[k] = load_float(dense->weights, dense->type, row * dense->n_in + k);
    return;
  }
  const Packed& packed = std::get<Packed>(w);
  const uint8_t* codes = packed.codes + row * packed.row_bytes();
  for (int64_t k = 0; k < packed.n_in; ++k) {
    const int64_t bit = k * packed.bits, g = row * packed.groups() + k / packed.group;
    const uint32_t second = bit % 8 + packed.bits > 8 ? codes[bit / 8 + 1] : 0;
    const uint32_t code = (codes[bit / 8] | second << 8) >> bit % 8 & ((1u << packed.bits) - 1);
    out[k] = load_float(packed.scales, packed.type, g) * static_cast<float>(code) +
             load_float(packed.biases, packed.type, g);
  }
}

}  // namespace kernels
