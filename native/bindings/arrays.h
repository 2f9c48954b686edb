// Numpy arrays in and out.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <array>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

template <class T, int kDimensions>
using Array = nanobind::ndarray<const T, nanobind::ndim<kDimensions>, nanobind::c_contig, nanobind::device::cpu>;

// Memory of arrays that numpy has let go, kept for the next of the same size, so that pages are not mapped and unmapped
// for every token's logits. Only a few arrays, and none larger than a token's logits are, so that little stays held.
// Used with the GIL held, as all arrays are made and freed.
class ArrayMemory {
 public:
  explicit ArrayMemory(size_t bytes) : bytes_(bytes) {
    for (Kept& kept : pool())
      if (kept.first && kept.second == bytes) {
        data_ = std::move(kept.first);
        return;
      }
    data_.reset(new std::byte[bytes]);
  }
  ~ArrayMemory() {
    if (bytes_ == 0 || bytes_ > kLargestKept) return;
    for (Kept& kept : pool())
      if (!kept.first) {
        kept = {std::move(data_), bytes_};
        return;
      }
    pool().front() = {std::move(data_), bytes_};
  }
  void* data() const { return data_.get(); }

 private:
  using Kept = std::pair<std::unique_ptr<std::byte[]>, size_t>;
  static constexpr size_t kLargestKept = size_t{4} << 20;
  static std::array<Kept, 4>& pool() {
    static std::array<Kept, 4> kept;
    return kept;
  }

  std::unique_ptr<std::byte[]> data_;
  size_t bytes_;
};

// A new array that owns its memory, its values not yet set.
template <class T>
auto make_array(std::initializer_list<size_t> shape) {
  size_t count = 1;
  for (size_t n : shape) count *= n;
  auto memory = std::make_unique<ArrayMemory>(count * sizeof(T));
  T* data = static_cast<T*>(memory->data());
  nanobind::capsule owner(memory.release(), [](void* p) noexcept { delete static_cast<ArrayMemory*>(p); });
  return nanobind::ndarray<nanobind::numpy, T>(data, shape, owner);
}

inline void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument(message);
}
