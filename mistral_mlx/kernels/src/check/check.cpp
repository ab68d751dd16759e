// Runs the checks; the data and the comparison of check.h, and the products against the portable ones.
#include "check.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>

#include "../parts/scalars.h"
#include "../run/pool.h"
#include "../run/products.h"

namespace kernels::check {
namespace {

constexpr int MAX_THREADS = 5;

std::mt19937 generator(1);
std::normal_distribution<float> distribution;

void store_float(float value, Float type, char* to) {
  if (type == Float::f32) return static_cast<void>(std::memcpy(to, &value, 4));
  const uint32_t rebased = float_to_bits(std::fabs(value) * 0x1p-112f) >> 13 | (std::signbit(value) ? 0x8000 : 0);
  const auto half = static_cast<uint16_t>(type == Float::f16 ? rebased : float_to_bits(value) >> 16);
  std::memcpy(to, &half, 2);
}

// A copy whose last byte is the last of its page, as in a mapped file; the page behind it cannot be read.
class LastOfMapping {
 public:
  LastOfMapping(const char* from, int64_t bytes) : page_(sysconf(_SC_PAGESIZE)), size_(round_up(bytes, page_)) {
    memory_ =
        static_cast<char*>(mmap(nullptr, size_ + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED || mprotect(memory_ + size_, page_, PROT_NONE) != 0) std::abort();
    at_ = static_cast<char*>(std::memcpy(memory_ + size_ - bytes, from, bytes));
  }
  ~LastOfMapping() { munmap(memory_, size_ + page_); }
  LastOfMapping(const LastOfMapping&) = delete;
  const uint8_t* at() const { return reinterpret_cast<const uint8_t*>(at_); }

 private:
  int64_t page_, size_;
  char *memory_, *at_;
};

// Relative to the largest number expected; NaN belongs where it is expected and nowhere else.
double difference(const std::vector<float>& result, const std::vector<double>& expected) {
  double worst = 0, largest = 1e-30;
  for (size_t i = 0; i < result.size(); ++i) {
    if (std::isnan(result[i]) != std::isnan(expected[i])) return INFINITY;
    worst = std::fmax(worst, std::fabs(result[i] - expected[i]));
    largest = std::fmax(largest, std::fabs(expected[i]));
  }
  return worst / largest;
}

void multiply_and_compare(Comparison* comparison, const std::vector<Matrix>& weights, const std::vector<float>& x,
                          int64_t rows, Products::Then then = Products::EACH) {
  const int64_t n_out = outputs_of(weights[0]);
  const std::vector<float> residual(rows * n_out, 0.5f);
  const auto run = [&](float* y) { compute({weights, x.data(), rows, {}, then, residual.data(), {y}}); };
  std::vector<float> portable(rows * n_out);
  select("portable");
  run(portable.data());
  comparison->run({portable.begin(), portable.end()}, run);
}

void packed_products(Comparison* comparison, int bits, int group, Float type, int64_t n_groups) {
  const int64_t n_in = group * n_groups;
  for (const int64_t n_out : {1, 19, 75})
    for (const int64_t rows : {1, 4, 9, 27}) {
      const int64_t n_bytes = n_out * n_in * bits / 8;
      const Data codes = Data::bytes(n_bytes);
      const LastOfMapping mapped(codes.at(), n_bytes);
      const Data scales = Data::floats(type, n_out * n_groups), biases = Data::floats(type, n_out * n_groups);
      std::vector<float> x = normal(rows * n_in);
      if (n_out == 19) x[n_in - 1] = rows == 4 ? NAN : INFINITY;
      const uint8_t* at = n_out == 19 ? reinterpret_cast<uint8_t*>(codes.at()) : mapped.at();
      const Packed w{at, scales.at(), biases.at(), type, bits, group, n_out, n_in};
      set_exact(rows == 27 && n_groups == 3);
      multiply_and_compare(comparison, {w}, x, rows);
    }
}

// Activations that no set rounds any more; one of several rows is not a number.
std::vector<float> dense_rows(Float type, int64_t rows, int64_t n_in) {
  std::vector<float> x = normal(rows * n_in);
  if (type == Float::bf16)
    for (float& value : x) value = round_to(value, type);
  if (rows > 2) x[n_in] = NAN;
  return x;
}

void dense_products(Comparison* comparison, Float type, int64_t n_in) {
  constexpr int64_t N_OUT = 37;
  const LastOfMapping weights(Data::floats(type, N_OUT * n_in).at(), N_OUT * n_in * float_bytes(type));
  const Dense w{weights.at(), type, N_OUT, n_in};
  for (const int64_t rows : {1, 13, 50, 140}) {
    const std::vector<float> x = dense_rows(type, rows, n_in);
    multiply_and_compare(comparison, {w}, x, rows, Products::ADD);
    multiply_and_compare(comparison, {w, w}, x, rows, Products::SWIGLU);
    set_exact(true);
    multiply_and_compare(comparison, {w}, normal(rows * n_in), rows);
    set_exact(false);
  }
}

// Whether a row of activations has the same bits alone and among 2 to 20 or many others.
bool same_bits_alone(Float type, int64_t n_in) {
  constexpr int64_t N_OUT = 37, MOST = 140;
  const LastOfMapping weights(Data::floats(type, N_OUT * n_in).at(), N_OUT * n_in * float_bytes(type));
  const Dense w{weights.at(), type, N_OUT, n_in};
  const std::vector<float> x = normal(MOST * n_in);
  std::vector<float> alone(MOST * N_OUT), together(MOST * N_OUT);
  const auto run = [&](int64_t row, int64_t rows, float* y) {
    compute({{w}, x.data() + row * n_in, rows, {}, Products::EACH, nullptr, {y}});
  };
  bool same = true;
  for (int64_t row = 0; row < MOST; ++row) run(row, 1, &alone[row * N_OUT]);
  for (const int64_t rows : {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 36, 37, 140}) {
    run(0, rows, together.data());
    same = same && std::memcmp(alone.data(), together.data(), rows * N_OUT * sizeof(float)) == 0;
  }
  return same;
}

}  // namespace

Data Data::bytes(int64_t n) {
  Data data(Float::f32, n);
  for (int64_t i = 0; i < n; ++i) data.at()[i] = static_cast<char>(generator());
  return data;
}

Data Data::floats(Float type, int64_t n) {
  Data data(type, n * float_bytes(type));
  for (int64_t i = 0; i < n; ++i) store_float(distribution(generator), type, data.at() + i * float_bytes(type));
  return data;
}

Data Data::codes(int64_t rows, int64_t head_dim) {
  Data data = bytes(rows * (head_dim + SCALE_BYTES));
  data.type_ = Float::q8;
  for (int64_t row = 0; row < rows; ++row)
    store_float(0.01f * distribution(generator), Float::f32, data.at() + row * (head_dim + SCALE_BYTES) + head_dim);
  return data;
}

double Data::operator[](int64_t i) const { return load_float(at(), type_, i); }

std::vector<float> normal(int64_t n) {
  std::vector<float> values(n);
  for (float& value : values) value = distribution(generator);
  return values;
}

void restart() {
  generator.seed(1);
  distribution.reset();
}

Comparison::Comparison(const char* what, double limit) : what_(what), limit_(limit) {
  for (const std::string& set : sets()) found_.push_back({set, 0, true});
}

void Comparison::run(const std::vector<double>& expected, const std::function<void(float*)>& compute) {
  std::vector<float> first(expected.size()), result(expected.size());
  for (Found& found : found_) {
    select(found.set);
    for (int n = 1; n <= MAX_THREADS; ++n) {
      set_threads(n);
      std::fill(result.begin(), result.end(), 1e30f);  // what is not written must not look right
      compute(result.data());
      if (n == 1) first = result;
      if (std::memcmp(first.data(), result.data(), result.size() * sizeof(float)) != 0) found.same_bits = false;
    }
    found.worst = std::fmax(found.worst, difference(first, expected));
  }
}

bool Comparison::report() const {
  bool right = true;
  for (const Found& found : found_) {
    std::printf("%-12s %-12s %.1e of the largest result%s\n", what_, found.set.c_str(), found.worst,
                found.same_bits ? "" : ", but other bits with other numbers of threads");
    right = right && found.worst <= limit_ && found.same_bits;
  }
  return right;
}

bool jobs() {
  bool right = true;
  for (int i = 0; i < 200; ++i) {  // on more and on fewer threads, every third job with pieces that find no memory
    set_threads(1 + i % MAX_THREADS);
    std::atomic<int> done{0};
    bool threw = false;
    try {
      parallel(50, [&](int64_t piece) {
        ++done;
        if (i % 3 == 0 && piece % 7 == 3) throw std::bad_alloc();
      });
    } catch (const std::bad_alloc&) {
      threw = true;
    }
    right = right && done == 50 && threw == (i % 3 == 0);
  }
  std::printf("jobs         %s\n", right ? "all pieces are run once, and an exception arrives" : "wrong");
  return right;
}

bool products() {
  Comparison comparison("products", 2e-5);
  for (const int bits : {2, 3, 4, 5, 6, 8})
    for (const int group : {32, 64, 128})
      for (const int64_t n_groups : {1, 3, 17})
        packed_products(&comparison, bits, group, TYPES[(bits + n_groups) % 3], n_groups);
  set_exact(false);
  return comparison.report();
}

bool dense() {
  Comparison comparison("dense", 4e-6);
  for (const Float type : TYPES)
    for (const int64_t n_in : {1, 77, 300, 2100}) dense_products(&comparison, type, n_in);
  bool right = comparison.report();
  for (const std::string& set : sets()) {
    select(set);
    bool same = true;
    for (const Float type : TYPES)
      for (const int64_t n_in : {1, 77, 300, 2100}) same = same_bits_alone(type, n_in) && same;
    std::printf("dense        %-12s %s\n", set.c_str(),
                same ? "a row has the same bits alone and among others" : "a row has other bits among others");
    right = right && same;
  }
  return right;
}

}  // namespace kernels::check

int main() {
  using namespace kernels::check;
  bool right = true;
  for (const auto check : {jobs, products, dense, attention, small_steps, blocks, packing}) right = check() && right;
  return right ? 0 : 1;
}
