// Anonymous memory in huge pages where the system gives them. Buffers made one after the other lie one after the other:
// a model's matrices, most of them smaller than a huge page, then read like one long array.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

namespace bitwright {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);  // zeroed, 64-byte aligned; throws std::bad_alloc
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(mapping_, other.mapping_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  template <class T>
  T* as() {
    return static_cast<T*>(data_);
  }
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data_);
  }
  size_t size() const { return bytes_; }

 private:
  std::shared_ptr<void> mapping_;  // unmapped when the last buffer in it goes
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace bitwright
