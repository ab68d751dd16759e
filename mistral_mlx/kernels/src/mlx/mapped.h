// Weights where they lie in their file: arrays over a mapping, nothing copied; knows nothing of headers or of Python.
#pragma once
#include <cstdint>
#include <tuple>
#include <vector>

#include <mlx/array.h>

namespace kernels {

using Part = std::tuple<int64_t, std::vector<int>, mlx::core::Dtype>;  // first byte in the file, shape, dtype

// One array for each part of the open file `fd`; they keep its contents when it is closed, deleted or replaced by
// another. The kernels read items from any address, MLX's own loops only from multiples of their size. With `all`, the
// whole file is read ahead. Throws std::invalid_argument if a part is not inside the file, std::system_error if it
// cannot be mapped.
std::vector<mlx::core::array> map_tensors(int fd, const std::vector<Part>& parts, bool all);

// Whether an array lies in a mapping.
bool is_mapped(const mlx::core::array& array);

// Takes the pages of an array that lies in a mapping out of this process: it has been copied. They come back from the
// file when they are read again.
void let_go(const mlx::core::array& array);

}  // namespace kernels
