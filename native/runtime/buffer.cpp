#include "bitwright/buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <mutex>
#include <new>

namespace bitwright {

namespace {

constexpr size_t kHugePage = size_t{2} << 20, kRegion = size_t{32} << 20, kLine = 64;

// Address space that starts at a huge page; pages come when they are first touched.
std::shared_ptr<void> map_region(size_t bytes) {
  const size_t length = bytes + kHugePage;
  void* mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  const auto begin = (reinterpret_cast<uintptr_t>(mapped) + kHugePage - 1) / kHugePage * kHugePage;
  madvise(reinterpret_cast<void*>(begin), bytes, MADV_HUGEPAGE);
  const std::shared_ptr<void> whole(mapped, [length](void* p) { munmap(p, length); });
  return std::shared_ptr<void>(whole, reinterpret_cast<void*>(begin));
}

// The region that small buffers are cut from, front to back. It is kept when its last buffer goes, and begun anew.
struct Open {
  std::mutex mutex;
  std::shared_ptr<void> region;
  size_t used = 0;

  // At least `bytes` that nobody has used, all of them zero.
  void make_room(size_t bytes) {
    if (region != nullptr && region.use_count() == 1 && used > 0) {
      madvise(region.get(), kRegion, MADV_DONTNEED);
      used = 0;
    }
    if (region != nullptr && used + bytes <= kRegion) return;
    region = map_region(kRegion);
    used = 0;
  }
};

}  // namespace

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  if (bytes >= kRegion / 4) {
    mapping_ = map_region(bytes);
    data_ = mapping_.get();
    return;
  }
  static Open open;
  const std::lock_guard lock(open.mutex);
  const size_t padded = (bytes + kLine - 1) / kLine * kLine;
  open.make_room(padded);
  mapping_ = open.region;
  data_ = static_cast<uint8_t*>(mapping_.get()) + open.used;
  open.used += padded;
}

}  // namespace bitwright
