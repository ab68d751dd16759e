// Many rows: a block of TILE outputs is unpacked once and meets all rows while it is in the cache. A set defines
// meet_block, or includes parts/passes.h, before it includes this file.
#pragma once
#include "block.h"

namespace kernels {
namespace {

// The weights of the block that begins at output n and input k. They are asked for while `visits` groups are
// multiplied. Behind the last input there is nothing to ask for.
inline Upcoming upcoming(const Panels& w, int64_t n, int64_t k, int64_t visits) {
  Upcoming next;
  if (k >= w.n_in) return next;
  const int64_t n_groups = (k + DEPTH < w.n_in ? DEPTH : w.n_in - k) / w.group;
  for (int64_t i = 0; i < TILE / PANEL; ++i) {
    const int64_t panel = n + i * PANEL < w.n_out ? n / PANEL + i : n / PANEL;
    next.panels[i] = w.data + panel * w.bytes() + k / w.group * w.group_bytes();
  }
  next.panel = 0;
  next.lines = n_groups * w.group_bytes() / 64;
  next.step = (TILE / PANEL * next.lines + visits - 1) / visits;
  return next;
}

template <int BITS, bool ROTATED>
void blocks(const Panels& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, Block* block) {
  constexpr int PLANES = ROTATED || CODE_BYTES == 2 ? 1 : 2;
  for (int64_t k = 0; k < w.n_in; k += DEPTH)  // outside, so that this part of the rows stays in the L2 cache
    for (int64_t n = n0; n < n1; n += TILE) {
      const int64_t k1 = k + DEPTH < w.n_in ? k + DEPTH : w.n_in, n_groups = (k1 - k) / w.group;
      for (int64_t first = 0; first < TILE && n + first < n1; first += WIDTH) {
        const uint8_t* at = w.data + (n + first) / PANEL * w.bytes() + k / w.group * w.group_bytes();
        unpack<BITS, ROTATED>(w, at, n_groups, block, first);
      }
      block->upcoming = n + TILE < n1 ? upcoming(w, n + TILE, k, n_groups) : upcoming(w, n0, k1, n_groups);
      meet_block<PLANES>(*block, w, x, k, k1, y + n, y_stride, n1 - n);
    }
}

void many(const Panels& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void* scratch) {
  with_bits(w.bits, [&]<int BITS> {
    if constexpr (rotated_points(BITS) > 1 && CODE_BYTES == 1)
      if (x.points > 1) return blocks<BITS, true>(w, x, y, y_stride, n0, n1, static_cast<Block*>(scratch));
    blocks<BITS, false>(w, x, y, y_stride, n0, n1, static_cast<Block*>(scratch));
  });
}

// Puts 16 codes in the order and form in which a block meets them: words of 16 bits, one plane of bytes, or
// two planes, the second one at `second`.
template <int BITS>
void arrange_many(const int16_t* codes, bool planes, uint8_t* first, uint8_t* second) {
  Eight c[2];
  std::memcpy(c, codes, sizeof c);
  if constexpr (CODE_BYTES == 2) {
    put_shuffled<Crossed<BITS, 0>>(c, first), put_shuffled<Crossed<BITS, 1>>(c, first + 16);
  } else if (planes) {
    for (Eight& some : c) some = START == 0 ? (some + 128) ^ 128 : some ^ 0x8000;
    put_shuffled<OneByte<BITS, 1>>(c, first), put_shuffled<OneByte<BITS, 0>>(c, second);
  } else {
    for (Eight& some : c) some ^= START;
    put_shuffled<OneByte<BITS, 0>>(c, first);
  }
}

void round_many(const float* x, const Panels& w, const Rounded& out, int64_t row) {
  uint8_t* to = out.codes + row * out.stride;
  with_bits(w.bits, [&]<int BITS> {
    round_row<CODE_BYTES == 2>(x, w, out, row, [&](int64_t k, const int16_t* codes) {
      for (int64_t i = 0; i < BLOCK; i += 16)
        arrange_many<BITS>(codes + i, out.points == 1, to + (k + i) * CODE_BYTES, to + plane_of(w) + k + i);
    });
  });
}

}  // namespace
}  // namespace kernels
