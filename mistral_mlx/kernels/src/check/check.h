// What the parts of kernels_check share: random data, and the comparison of a result over sets and threads. The program
// needs neither MLX nor Python: it is for sanitizers, and for other CPUs under qemu.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "../contract.h"

namespace kernels::check {

constexpr Float TYPES[] = {Float::f32, Float::f16, Float::bf16};  // of weights

// Normally distributed numbers, or any bytes. The buffer ends with its contents, so that AddressSanitizer sees every
// read behind them, and begins on an odd address, as weights of a mapped file may.
class Data {
 public:
  static Data bytes(int64_t n);
  static Data floats(Float type, int64_t n);
  static Data codes(int64_t rows, int64_t head_dim);  // of q8, with their scales

  char* at() const { return memory_.get() + 1; }
  double operator[](int64_t i) const;  // of floats

 private:
  Data(Float type, int64_t bytes) : type_(type), memory_(new char[bytes + 1]) {}

  Float type_;
  std::unique_ptr<char[]> memory_;
};

std::vector<float> normal(int64_t n);
void restart();  // random data is the same again from here on

// Runs a computation with every set of kernels that this CPU has on 1 to 5 threads, and compares the results.
class Comparison {
 public:
  // The limit is relative to the largest number expected.
  Comparison(const char* what, double limit);

  // compute(out) writes as many numbers as are expected.
  void run(const std::vector<double>& expected, const std::function<void(float*)>& compute);
  bool report() const;  // a line for each set; false if one is wrong

 private:
  struct Found {
    std::string set;
    double worst;
    bool same_bits;  // with any number of threads
  };
  const char* what_;
  double limit_;
  std::vector<Found> found_;
};

bool jobs();
bool products();
bool attention();
bool small_steps();
bool blocks();
bool packing();

}  // namespace kernels::check
