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

// Memory of arrays that numpy has let go, kept for the next of the same size: mapping and unmapping pages for every
// token's logits costs a twelfth of a token's time. Used with the GIL held, as all arrays are made and freed.
class ArrayMemory {
 public:
  explicit ArrayMemory(size_t bytes) : bytes_(bytes) {
    for (auto& kept : pool())
      if (kept.second == bytes && kept.first) {
        data_ = std::move(kept.first);
        return;
      }
    data_.reset(new std::byte[bytes]);
  }
  ~ArrayMemory() { pool()[next()++ % pool().size()] = {std::move(data_), bytes_}; }
  void* data() const { return data_.get(); }

 private:
  using Kept = std::pair<std::unique_ptr<std::byte[]>, size_t>;
  static std::array<Kept, 4>& pool() {
    static std::array<Kept, 4> kept;
    return kept;
  }
  static size_t& next() {
    static size_t place = 0;
    return place;
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
