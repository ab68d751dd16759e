// The thread pool: hands the pieces of one job at a time to whoever is free. Knows nothing of what the pieces do.
#pragma once
#include <cstdint>

namespace kernels {

// Calls piece(context, i) once for every i in [0, n), on the calling thread and the pool's, and returns when all are
// done. Each thread has a range of pieces to take from, in order, and then helps with those of the others, so that a
// core which is busy otherwise slows only the pieces it holds. If pieces throw, the others are run all the same, and
// then the first exception is thrown here.
void run_pieces(int64_t n, void (*piece)(void* context, int64_t i), void* context);

template <typename Function>
void parallel(int64_t n, Function&& function) {
  run_pieces(n, [](void* context, int64_t i) { (*static_cast<Function*>(context))(i); }, &function);
}

int threads();
void set_threads(int n);  // 0: the default, see default_threads in cpus.h

}  // namespace kernels
