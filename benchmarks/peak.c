/* The arithmetic peak of a CPU: the widest int8 dot product this compiler targets, on N threads. Prints one JSON line.

   Twelve accumulators hide the latency of the instruction; nothing is read from memory. One multiply-add is two
   operations. Without such an instruction, multiply-adds of float32 as the compiler makes them. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__AVX512VNNI__)
#include <immintrin.h>
typedef __m512i Vector;
#define NAME "AVX-512 VNNI"
#define OPS 128
#define STEP(acc, a, b) _mm512_dpbusd_epi32(acc, a, b)
#elif defined(__AVXVNNI__)
#include <immintrin.h>
typedef __m256i Vector;
#define NAME "AVX-VNNI"
#define OPS 64
#define STEP(acc, a, b) _mm256_dpbusd_avx_epi32(acc, a, b)
#elif defined(__AVX2__)
#include <immintrin.h>
typedef __m256i Vector;
#define NAME "AVX2 maddubs"
#define OPS 64
#define STEP(acc, a, b) \
  _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
typedef int8x16_t Vector;
#define NAME "NEON dotprod"
#define OPS 32
#define STEP(acc, a, b) vreinterpretq_s8_s32(vdotq_s32(vreinterpretq_s32_s8(acc), a, b))
#else
typedef float Vector __attribute__((vector_size(16)));
#define NAME "float32"
#define OPS 8
#define STEP(acc, a, b) ((acc) + (a) * (b))
#endif

#if defined(__x86_64__)
#define KEEP(v) __asm__ volatile("" : "+x"(v))
#else
#define KEEP(v) __asm__ volatile("" : "+w"(v))
#endif

#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11)
#define DECLARE(i) Vector acc##i = a;
#define ADVANCE(i) KEEP(a); acc##i = STEP(acc##i, a, b); KEEP(acc##i); /* each step is taken whole, in registers */
enum { ACCUMULATORS = 12 };
static const int64_t ROUNDS = 1000; /* between two looks at the clock */
static const double SECONDS = 0.5;
static volatile char seed = 0x3c; /* volatile: nothing is computed ahead; also 0.0115, which is no subnormal float */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void* run(void* result) {
  Vector a, b;
  for (size_t i = 0; i < sizeof(a); ++i) ((char*)&a)[i] = ((char*)&b)[i] = seed;
  EACH(DECLARE)
  int64_t rounds = 0;
  const double start = now();
  double end = start;
  for (; end - start < SECONDS; rounds += ROUNDS, end = now()) {
    for (int64_t n = 0; n < ROUNDS; ++n) {
      EACH(ADVANCE)
    }
  }
  *(double*)result = (double)(rounds * ACCUMULATORS * OPS) / (end - start);
  return NULL;
}

int main(int argc, char** argv) {
  const int n = argc > 1 ? atoi(argv[1]) : 1;
  pthread_t threads[256];
  double rates[256], total = 0;
  if (n < 1 || n > 256) return 1;
  for (int i = 0; i < n; ++i) pthread_create(&threads[i], NULL, run, &rates[i]);
  for (int i = 0; i < n; ++i) {
    pthread_join(threads[i], NULL);
    total += rates[i];
  }
  printf("{\"instruction\": \"%s\", \"ops\": %.6g}\n", NAME, total);
  return 0;
}
