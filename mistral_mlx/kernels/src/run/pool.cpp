// The threads: pieces of a job that any of them can take, a brief spin, then sleep. The contract is in pool.h.
#include "pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "cpus.h"

namespace kernels {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto SPIN = std::chrono::microseconds(50);  // longer than the gap between two products of a model

inline void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <typename Condition>
bool spin_until(Condition&& condition) {
  for (int i = 0; i < 64; ++i) {
    if (condition()) return true;
    pause_cpu();
  }
  for (const auto end = Clock::now() + SPIN; Clock::now() < end;)
    for (int i = 0; i < 32; ++i) {
      if (condition()) return true;
      pause_cpu();
    }
  return condition();
}

// A job's number and pieces [first, last) that are left, in one word: who takes a piece by compare-and-swap knows that
// the job it read about is the one that is running, however long it slept in between.
struct Range {
  static constexpr int BITS = 20;
  static constexpr uint64_t MASK = (uint64_t{1} << BITS) - 1;
  uint64_t word;

  static Range of(uint64_t job, uint64_t first, uint64_t last) { return {job << (2 * BITS) | last << BITS | first}; }
  uint64_t last() const { return word >> BITS & MASK; }
  uint64_t first() const { return word & MASK; }
  uint64_t size() const { return first() < last() ? last() - first() : 0; }
  Range without_first(uint64_t n) const { return {word + n}; }
  Range without_last(uint64_t n) const { return {word - (n << BITS)}; }
};

class Pool {
 public:
  int size() {
    std::lock_guard lock(mutex_);
    return start(0);
  }

  void resize(int n) {
    std::lock_guard lock(mutex_);
    active_.store(0);
    start(n);
  }

  void run(int64_t n, void (*piece)(void*, int64_t), void* context) {
    if (n <= 1) {
      if (n == 1) piece(context, 0);
      return;
    }
    std::lock_guard lock(mutex_);
    start(0);
    for (int64_t base = 0; base < n; base += Range::MASK)
      run_job(base, std::min<int64_t>(n - base, Range::MASK), piece, context);
  }

 private:
  void run_job(int64_t base, int64_t n, void (*piece)(void*, int64_t), void* context) {
    base_.store(base, std::memory_order_relaxed);
    piece_.store(piece, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    pieces_.store(n, std::memory_order_relaxed);
    const uint64_t ranges = n_ranges();
    ++job_;
    for (uint64_t i = 0; i < ranges; ++i)
      ranges_[i].word.store(Range::of(job_, n * i / ranges, n * (i + 1) / ranges).word, std::memory_order_release);
    if (active_.load(std::memory_order_relaxed) > 1) {
      signal_.store(static_cast<uint32_t>(job_));
      if (sleepers_.load() > 0) signal_.notify_all();
    }
    take_pieces(0);
    const auto finished = [&] { return done_.load(std::memory_order_acquire) == n; };
    if (!spin_until(finished))
      for (int64_t seen; (seen = done_.load(std::memory_order_acquire)) != n;) done_.wait(seen);
    if (failed_.load(std::memory_order_acquire)) rethrow();
  }

  // No exception leaves a piece: in a worker it would end the process, and in the caller it would free the context that
  // the workers still use. The first one is kept until the job is done.
  void run_piece(void (*piece)(void*, int64_t), void* context, int64_t i) noexcept {
    try {
      piece(context, i);
    } catch (...) {
      std::lock_guard lock(error_mutex_);
      if (error_ == nullptr) error_ = std::current_exception();
      failed_.store(true, std::memory_order_release);
    }
  }

  [[noreturn]] void rethrow() {
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(error_, nullptr));
  }

  // First those of its own range, then the last ones of others.
  void take_pieces(int index) {
    const int ranges = n_ranges();
    int64_t n = 0;
    for (int i = 0; i < ranges; ++i)
      while (const int64_t taken = take_some(ranges_[(index + i) % ranges].word, i == 0)) n += taken;
    if (n > 0 && done_.fetch_add(n, std::memory_order_acq_rel) + n == pieces_.load(std::memory_order_relaxed))
      done_.notify_one();
  }

  // Runs an eighth of the pieces that are left, the first ones of the own range or the last ones of another, and
  // returns how many. Each taking stops the loads of weights that are under way, and a late thread should hold few.
  int64_t take_some(std::atomic<uint64_t>& word, bool own) {
    for (;;) {
      Range range{word.load(std::memory_order_acquire)};
      if (range.size() == 0) return 0;
      const auto piece = piece_.load(std::memory_order_relaxed);
      void* context = context_.load(std::memory_order_relaxed);
      const int64_t base = base_.load(std::memory_order_relaxed);
      const uint64_t n = (range.size() + 7) / 8;
      const Range left = own ? range.without_first(n) : range.without_last(n);
      const int64_t first = base + static_cast<int64_t>(own ? range.first() : left.last());
      if (!word.compare_exchange_weak(range.word, left.word, std::memory_order_acq_rel)) continue;
      for (uint64_t i = 0; i < n; ++i) run_piece(piece, context, first + static_cast<int64_t>(i));
      return static_cast<int64_t>(n);
    }
  }

  void work(int index) {
    uint32_t seen = 0;
    for (;;) {
      if (const int active = active_.load(); index >= active) {
        active_.wait(active);  // not for signal_, which wakes its sleepers for every job
        continue;
      }
      if (!spin_until([&] { return signal_.load() != seen; })) {
        sleepers_.fetch_add(1);
        signal_.wait(seen);
        sleepers_.fetch_sub(1);
      }
      seen = signal_.load();
      if (index < active_.load(std::memory_order_relaxed)) take_pieces(index);
    }
  }

  // Threads are started when first needed and live as long as the process. Those above a smaller number sleep until it
  // grows.
  int start(int n) {
    if (n == 0 && active_.load(std::memory_order_relaxed) > 0) return active_.load(std::memory_order_relaxed);
    if (n == 0) n = default_threads();
    try {
      for (; started_ < n - 1; ++started_) std::thread([this, index = started_ + 1] { work(index); }).detach();
    } catch (const std::system_error&) {  // the system gives no more: those that there are do the work
      n = started_ + 1;
    }
    active_.store(n);
    active_.notify_all();
    return n;
  }

  int n_ranges() const { return std::clamp(active_.load(std::memory_order_relaxed), 1, MAX_RANGES); }

  static constexpr int MAX_RANGES = 64;  // with more threads, some share one
  struct alignas(64) SharedRange {
    std::atomic<uint64_t> word{0};
  };

  std::mutex mutex_, error_mutex_;
  std::exception_ptr error_;  // the first one of the job, under error_mutex_ while it runs
  std::atomic<bool> failed_{false};
  int started_ = 0;
  uint64_t job_ = 0;
  std::atomic<int> active_{0}, sleepers_{0};
  std::atomic<int64_t> base_{0}, pieces_{0};
  std::atomic<void (*)(void*, int64_t)> piece_{nullptr};
  std::atomic<void*> context_{nullptr};
  SharedRange ranges_[MAX_RANGES];
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<uint32_t> signal_{0};
};

Pool& pool() {
  static Pool* const forever = new Pool;  // its threads outlive every static destructor
  return *forever;
}

}  // namespace

void run_pieces(int64_t n, void (*piece)(void*, int64_t), void* context) { pool().run(n, piece, context); }

int threads() { return pool().size(); }

void set_threads(int n) { pool().resize(n); }

}  // namespace kernels
