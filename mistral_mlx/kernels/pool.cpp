// The threads: pieces of a job that any of them can take, a brief spin, then sleep. The contract is in pool.h.
#include "pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <system_error>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

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

// A job's number, its pieces and the next of them to take, in one word: who takes a piece by compare-and-swap knows
// that the job it read about is the one that is running, however long it slept in between.
struct Ticket {
  static constexpr int BITS = 20;
  static constexpr uint64_t MASK = (uint64_t{1} << BITS) - 1;
  uint64_t word;

  static Ticket of(uint64_t job, uint64_t n) { return {job << (2 * BITS) | n << BITS}; }
  uint64_t n() const { return word >> BITS & MASK; }
  uint64_t next() const { return word & MASK; }
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
    for (int64_t base = 0; base < n; base += Ticket::MASK) run_job(base, std::min<int64_t>(n - base, Ticket::MASK), piece, context);
  }

 private:
  void run_job(int64_t base, int64_t n, void (*piece)(void*, int64_t), void* context) {
    base_.store(base, std::memory_order_relaxed);
    piece_.store(piece, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    ticket_.store(Ticket::of(++job_, static_cast<uint64_t>(n)).word, std::memory_order_release);
    if (active_.load(std::memory_order_relaxed) > 1) {
      signal_.store(static_cast<uint32_t>(job_));
      if (sleepers_.load() > 0) signal_.notify_all();
    }
    take_pieces();
    const auto finished = [&] { return done_.load(std::memory_order_acquire) == n; };
    if (!spin_until(finished))
      for (int64_t seen; (seen = done_.load(std::memory_order_acquire)) != n;) done_.wait(seen);
  }

  void take_pieces() {
    for (;;) {
      Ticket ticket{ticket_.load(std::memory_order_acquire)};
      if (ticket.next() >= ticket.n()) return;
      const auto piece = piece_.load(std::memory_order_relaxed);
      void* context = context_.load(std::memory_order_relaxed);
      const int64_t base = base_.load(std::memory_order_relaxed);
      uint64_t expected = ticket.word;
      if (!ticket_.compare_exchange_weak(expected, ticket.word + 1, std::memory_order_acq_rel)) continue;
      piece(context, base + static_cast<int64_t>(ticket.next()));
      if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<int64_t>(ticket.n())) done_.notify_one();
    }
  }

  void work(int index) {
    uint32_t seen = 0;
    for (;;) {
      const auto called = [&] { return index < active_.load(std::memory_order_relaxed) && signal_.load() != seen; };
      if (!spin_until(called)) {
        sleepers_.fetch_add(1);
        signal_.wait(seen);
        sleepers_.fetch_sub(1);
      }
      seen = signal_.load();
      if (index < active_.load(std::memory_order_relaxed)) take_pieces();
    }
  }

  // Threads are started when first needed and live as long as the process; a smaller number leaves the rest asleep.
  int start(int n) {
    if (n == 0 && active_.load(std::memory_order_relaxed) > 0) return active_.load(std::memory_order_relaxed);
    if (n == 0) n = default_threads();
    try {
      for (; started_ < n - 1; ++started_) std::thread([this, index = started_ + 1] { work(index); }).detach();
    } catch (const std::system_error&) {  // the system gives no more: those that there are do the work
      n = started_ + 1;
    }
    active_.store(n);
    return n;
  }

  static int default_threads();

  std::mutex mutex_;
  int started_ = 0;
  uint64_t job_ = 0;
  std::atomic<int> active_{0}, sleepers_{0};
  std::atomic<int64_t> base_{0};
  std::atomic<void (*)(void*, int64_t)> piece_{nullptr};
  std::atomic<void*> context_{nullptr};
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<uint32_t> signal_{0};
};

std::string first_line(const std::string& path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  return line;
}

// Whole CPUs that the control group may use; a large number without a limit.
int quota() {
  const std::string v2 = first_line("/sys/fs/cgroup/cpu.max");  // "max 100000" or "150000 100000"
  double limit = -1, period = 100000;
  try {
    if (!v2.empty() && v2[0] != 'm') {
      limit = std::stod(v2);
      period = std::stod(v2.substr(v2.find(' ')));
    } else if (v2.empty()) {
      const std::string us = first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
      const std::string length = first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
      if (!us.empty() && !length.empty()) limit = std::stod(us), period = std::stod(length);
    }
  } catch (const std::exception&) {  // a form we do not know is no limit we know
    return 1 << 20;
  }
  return limit <= 0 || period <= 0 ? 1 << 20 : std::max(1, static_cast<int>(limit / period));
}

int Pool::default_threads() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    std::set<std::string> siblings;  // one entry per physical core
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &allowed)) {
        const std::string topology = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list";
        const std::string list = first_line(topology);
        siblings.insert(list.empty() ? std::to_string(cpu) : list);
      }
    cores = static_cast<int>(siblings.size());
  }
#endif
  return std::max(1, std::min(cores, quota()));
}

Pool& pool() {
  static Pool* const forever = new Pool;  // its threads outlive every static destructor
  return *forever;
}

}  // namespace

void run_pieces(int64_t n, void (*piece)(void*, int64_t), void* context) { pool().run(n, piece, context); }

int threads() { return pool().size(); }

void set_threads(int n) { pool().resize(n); }

}  // namespace kernels
