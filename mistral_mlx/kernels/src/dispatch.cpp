// Chooses the table of kernels: the only file that asks which CPU this is.
#include <atomic>

#include "contract.h"

#if defined(__x86_64__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace kernels {

// One table per instruction set. Plain data: reading the name of a set runs no instruction of that set.
extern const Kernels portable, avx2, avx_vnni, avx512, avx512_bf16, avx512_amx, neon, neon_i8mm;

namespace {

struct Choice {
  const Kernels* table;
  bool (*runs)();
};

bool always() { return true; }

#if defined(__x86_64__)
// These also ask the operating system whether it keeps the registers.
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
// A bit of EAX in leaf 7, subleaf 1: older compilers know no names for these.
bool has_bit(int bit) {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> bit & 1);
}
bool has_avx_vnni() { return has_avx2() && has_bit(4); }
bool has_avx512_bf16() { return has_avx512() && has_bit(5); }
// Linux asks a process to ask for the tiles before it uses them.
bool has_avx512_amx() {
  unsigned a, b, c, d;
  if (!has_avx512_bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if (!(d >> 24 & 1) || !(d >> 25 & 1)) return false;  // tiles, and their products of bytes
#ifdef __linux__
  constexpr int REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM and XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
  return false;
#endif
}
constexpr Choice CHOICES[] = {{&avx512_amx, has_avx512_amx},
                              {&avx512_bf16, has_avx512_bf16},
                              {&avx512, has_avx512},
                              {&avx_vnni, has_avx_vnni},
                              {&avx2, has_avx2},
                              {&portable, always}};
#elif defined(__aarch64__)
#ifdef __APPLE__
bool has(const char* feature) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}
bool has_dotprod() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has_dotprod() && has("hw.optional.arm.FEAT_I8MM"); }
#else
// The bits of Linux's asm/hwcap.h, which older C libraries lack: ASIMDDP and, in the second word, I8MM.
bool has_dotprod() { return getauxval(AT_HWCAP) >> 20 & 1; }
bool has_i8mm() { return has_dotprod() && (getauxval(AT_HWCAP2) >> 13 & 1); }
#endif
constexpr Choice CHOICES[] = {{&neon_i8mm, has_i8mm}, {&neon, has_dotprod}, {&portable, always}};
#else
constexpr Choice CHOICES[] = {{&portable, always}};
#endif

// The tables that this CPU can run, the best one first; never empty.
std::vector<const Kernels*> usable() {
  std::vector<const Kernels*> tables;
  for (const Choice& choice : CHOICES)
    if (choice.runs()) tables.push_back(choice.table);
  return tables;
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

bool select(const std::string& name) {
  for (const Kernels* table : usable())
    if (name == table->name) {
      chosen.store(table);
      return true;
    }
  return false;
}

const Kernels& active() {
  const Kernels* table = chosen.load(std::memory_order_relaxed);
  if (table == nullptr) chosen.store(table = usable().front());
  return *table;
}

std::vector<std::string> sets() {
  std::vector<std::string> names;
  for (const Kernels* table : usable()) names.emplace_back(table->name);
  return names;
}

}  // namespace kernels
