// Arrays over a mapped file, see mapped.h. A file that shrinks while it is mapped raises SIGBUS in whoever reads the
// lost pages; nothing can check that in advance.
#include "mapped.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>

namespace mx = mlx::core;

namespace kernels {
namespace {

size_t size_of(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) throw std::system_error(errno, std::generic_category(), "fstat");
  return static_cast<size_t>(status.st_size);
}

// Private and writable: MLX itself never writes into memory it did not allocate (array::is_donatable), but NumPy views
// of an array may be written to, and that must reach neither the file nor a page that refuses it. Pages only read stay
// those of the page cache, shared by all processes. Not reserved, as nearly none are written; where strict accounting
// or RLIMIT_DATA refuses even that, read-only.
class Mapping {
 public:
  explicit Mapping(int fd) : nbytes_(size_of(fd)) {
    data_ = mmap(nullptr, nbytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (data_ == MAP_FAILED && errno == ENOMEM) data_ = mmap(nullptr, nbytes_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data_ == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
    const std::lock_guard lock(all_mutex);
    all.push_back(this);
  }
  ~Mapping() {
    const std::lock_guard lock(all_mutex);
    all.erase(std::find(all.begin(), all.end(), this));
    munmap(data_, nbytes_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  // In steps, so that the address space is not locked for long; until pages are let go.
  void advise(int advice) const {
    constexpr size_t STEP = 16 << 20;
    for (size_t at = 0; at < nbytes_ && !lets_go_; at += STEP)
      if (madvise(static_cast<char*>(data_) + at, std::min(STEP, nbytes_ - at), advice) != 0) return;
  }

  // The whole pages of [p, p + nbytes), which is inside.
  void let_go(const char* p, size_t nbytes) {
    const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), start = reinterpret_cast<uintptr_t>(p);
    const uintptr_t first = (start + page - 1) / page * page, last = (start + nbytes) / page * page;
    lets_go_ = true;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  }

  // Calls use(mapping) for the one in which p lies, and says whether there is one.
  template <typename Use>
  static bool with(const char* p, Use&& use) {
    const std::lock_guard lock(all_mutex);
    for (Mapping* mapping : all) {
      const char* data = static_cast<const char*>(mapping->data_);
      if (p >= data && p < data + mapping->nbytes_) return use(*mapping), true;
    }
    return false;
  }

  const char* at(int64_t start, size_t nbytes) const {
    if (start < 0 || nbytes > nbytes_ || static_cast<size_t>(start) > nbytes_ - nbytes) {
      throw std::invalid_argument("it became shorter while it was opened");
    }
    return static_cast<const char*>(data_) + start;
  }

 private:
  static inline std::mutex all_mutex;
  static inline std::vector<Mapping*> all;
  size_t nbytes_;
  void* data_;
  std::atomic<bool> lets_go_{false};
};

// Enters the pages of the file into the page table ahead of the first pass, which would stop at each sixteenth of them.
// Where the system cannot, the first pass does it.
void populate([[maybe_unused]] std::shared_ptr<Mapping> file) {
#ifdef MADV_POPULATE_READ
  try {
    std::thread([file = std::move(file)] { file->advise(MADV_POPULATE_READ); }).detach();
  } catch (const std::system_error&) {  // no thread to be had
  }
#endif
}

// A buffer of MLX's own that keeps the mapping. Tensors are views of it whose offset leads into the mapping: MLX can
// wrap foreign memory only where Metal does, on a CPU it copies.
mx::array anchor(const std::shared_ptr<Mapping>& file) {
  const auto free = [file](mx::allocator::Buffer buffer) { mx::allocator::allocator().free(buffer); };
  return mx::array(mx::allocator::Data(mx::allocator::allocator().malloc(1), free), {1}, mx::uint8);
}

mx::array tensor_at(const char* data, mx::array tensor, const mx::array& anchor) {
  mx::Strides strides(tensor.ndim(), 1);
  for (int axis = tensor.ndim() - 1; axis > 0; --axis) strides[axis - 1] = strides[axis] * tensor.shape(axis);
  mx::array bytes({1}, mx::uint8, nullptr, {});  // an offset counts items, and a tensor may begin at any byte
  bytes.copy_shared_buffer(anchor, {1}, anchor.flags(), 1,
                           reinterpret_cast<intptr_t>(data) - reinterpret_cast<intptr_t>(anchor.data<char>()));
  tensor.copy_shared_buffer(bytes, strides, {true, true, tensor.ndim() <= 1 || tensor.size() <= 1}, tensor.size());
  tensor.set_status(mx::array::Status::available);
  return tensor;
}

}  // namespace

std::vector<mx::array> map_tensors(int fd, const std::vector<Part>& parts, bool all) {
  const auto file = std::make_shared<Mapping>(fd);
  if (all) populate(file);
  const mx::array holder = anchor(file);
  std::vector<mx::array> tensors;
  for (const auto& [start, shape, dtype] : parts) {
    mx::array tensor(mx::Shape(shape.begin(), shape.end()), dtype, nullptr, {});
    tensors.push_back(tensor_at(file->at(start, tensor.nbytes()), tensor, holder));
  }
  return tensors;
}

bool is_mapped(const mx::array& array) {
  return array.is_available() && Mapping::with(array.data<char>(), [](Mapping&) {});
}

void let_go(const mx::array& array) {
  size_t nbytes = array.itemsize();  // from its first element to its last, of columns of a matrix too
  for (int axis = 0; axis < static_cast<int>(array.ndim()); ++axis)
    nbytes += (array.shape(axis) - 1) * array.strides(axis) * array.itemsize();
  Mapping::with(array.data<char>(), [&](Mapping& mapping) { mapping.let_go(array.data<char>(), nbytes); });
}

}  // namespace kernels
