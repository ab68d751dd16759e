// The kernels of this CPU against the portable ones, without MLX or Python: for sanitizers, and for qemu. Buffers are
// exactly as long as their contents, so that AddressSanitizer sees every read behind one.
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "pool.h"
#include "products.h"

namespace {

using namespace kernels;

std::mt19937 generator(1);

template <typename T>
std::unique_ptr<T[]> filled(int64_t n) {
  std::unique_ptr<T[]> values(new T[n]);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < n; ++i) values[i] = static_cast<T>(sizeof(T) == 1 ? generator() : normal(generator));
  return values;
}

// How far `name` is from the portable kernels, relative to the largest result.
template <typename Weights>
double difference(const char* name, const Weights& w, const float* x, int64_t rows) {
  std::vector<float> expected(rows * w.n_out), result(rows * w.n_out);
  select("portable");
  multiply(w, x, rows, expected.data());
  select(name);
  multiply(w, x, rows, result.data());
  double worst = 0, largest = 1e-30;
  for (size_t i = 0; i < result.size(); ++i) {
    worst = std::fmax(worst, std::fabs(result[i] - expected[i]));
    largest = std::fmax(largest, std::fabs(expected[i]));
    if (std::isnan(result[i])) return INFINITY;
  }
  return worst / largest;
}

double worst_of(const char* name) {
  double worst = 0;
  for (const int bits : {2, 3, 4, 5, 6, 8})
    for (const int group : {32, 64, 128})
      for (const int64_t n_groups : {1, 3, 19})
        for (const int64_t n_out : {1, 19, 75})
          for (const int64_t rows : {1, 4, 5, 27}) {
            const int64_t n_in = group * n_groups;
            const auto codes = filled<uint8_t>(n_out * n_in * bits / 8);
            const auto scales = filled<float>(n_out * n_groups), biases = filled<float>(n_out * n_groups), x = filled<float>(rows * n_in);
            const Packed w{codes.get(), scales.get(), biases.get(), Float::f32, bits, group, n_out, n_in};
            worst = std::fmax(worst, difference(name, w, x.get(), rows));
          }
  for (const int64_t n_in : {1, 77, 300})
    for (const int64_t rows : {1, 13}) {
      const auto weights = filled<float>(37 * n_in), x = filled<float>(rows * n_in);
      worst = std::fmax(worst, difference(name, Dense{weights.get(), Float::f32, 37, n_in}, x.get(), rows));
    }
  return worst;
}

}  // namespace

int main() {
  bool right = true;
  for (const int n : {1, 2, 5}) {
    set_threads(n);
    for (const char* name : {"portable", "avx2", "avx-vnni", "avx512"}) {
      if (!select(name)) continue;
      const double worst = worst_of(name);
      right = right && worst < 1e-4;
      std::printf("%-12s %d threads: %.1e of the largest result\n", name, n, worst);
    }
  }
  return right ? 0 : 1;
}
