// The keys and values of one sequence, for all layers.
//
// Memory is laid out by spans of kAttentionSpan positions, all layers of a span together, in pages that the system gives
// when they are first written: a sequence takes memory for the positions it has, not for those it may have. With d the
// head dimension, D = d rounded up to 16, D32 = d rounded up to 32, one layer and key head takes for every span
//
//   fp32, fp16:  kAttentionSpan * (d + D) * 4 or 2 bytes
//   int8, int4:  kAttentionSpan * ((D32 + D) * 1 or 1/2 + 8) bytes, the 8 being two fp32 scales of a position
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "bitwright/buffer.h"
#include "bitwright/kernels.h"
#include "bitwright/model.h"

namespace bitwright {

enum class CacheType { fp32, fp16, int8, int4 };

constexpr int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

// Turns a head's channels by a Hadamard transform, in blocks of the largest power of two that divides their number. It is its
// own inverse. Spreading a head's outliers over its channels is what lets four bits hold them (QuaRot: Ashkboos et al.
// 2024, arXiv:2404.00456).
inline void turn_head(const Kernels& kernels, float* x, int n) { kernels.hadamard(x, n, n & -n, x); }

// Keys as panels of 16 positions, values as panels of 16 channels. int8 and int4 have one scale for each position and
// head; int4 holds Hadamard-transformed channels.
class KvCache {
 public:
  KvCache(const Model& model, int context, CacheType type);

  // Different positions and heads may be written at the same time, except positions of one group of eight (8i .. 8i + 7)
  // and the same head.
  void write(int layer, int head, int position, const float* key, const float* value);

  // What was written, as floats.
  void read(int layer, int head, int position, float* key, float* value) const;
  // Writes the first positions of a cache of the same shape into this one, whatever the types of both.
  void copy_from(const KvCache& other, int positions);

  // Of one span: panels of 16 positions, `key_bytes(16)` apart; panels of 16 channels, `value_panel_bytes()` apart.
  const uint8_t* keys(int layer, int head, int span) const { return strip(layer, head, span); }
  const uint8_t* values(int layer, int head, int span) const { return strip(layer, head, span) + key_bytes(kAttentionSpan); }
  const float* key_scales(int layer, int head, int span) const;
  const float* value_scales(int layer, int head, int span) const {
    return key_scales(layer, head, span) + (coded() ? kAttentionSpan : 0);
  }

  bool fits(const Model& model) const {
    return static_cast<int>(model.layers.size()) == layers_ && model.kv_heads == heads_ && model.head_dim == head_dim_;
  }
  CacheType type() const { return type_; }
  bool coded() const { return type_ == CacheType::int8 || type_ == CacheType::int4; }
  bool transformed() const { return type_ == CacheType::int4; }
  int bits() const { return type_ == CacheType::fp32 ? 32 : type_ == CacheType::fp16 ? 16 : type_ == CacheType::int8 ? 8 : 4; }
  DenseType dense_type() const { return type_ == CacheType::fp32 ? DenseType::fp32 : DenseType::fp16; }
  int context() const { return context_; }
  int layers() const { return layers_; }
  int heads() const { return heads_; }
  int head_dim() const { return head_dim_; }
  size_t key_bytes(int positions) const { return static_cast<size_t>(positions) * key_width_ * bits() / 8; }
  size_t value_panel_bytes() const { return static_cast<size_t>(kAttentionSpan) * kPanelRows * bits() / 8; }
  // What lies together of a span's first positions: all of one layer's head, or its keys only where the span is not full.
  MemoryRange part(int layer, int head, int span, int positions) const {
    return {strip(layer, head, span), positions < kAttentionSpan ? key_bytes(round_up(positions, kPanelRows)) : strip_bytes_};
  }
  // Of its values, what those positions take.
  MemoryStrips values_part(int layer, int head, int span, int positions) const {
    const size_t bytes = static_cast<size_t>(positions) * kPanelRows * bits() / 8;
    return {{values(layer, head, span), bytes}, value_panel_bytes(), value_width_ / kPanelRows};
  }
  size_t span_bytes() const { return static_cast<size_t>(layers_) * heads_ * strip_bytes_; }
  // Bytes that this many positions take.
  size_t bytes(int positions) const { return span_bytes() * ((positions + kAttentionSpan - 1) / kAttentionSpan); }
  uint8_t* data() { return memory_.as<uint8_t>(); }

 private:
  const uint8_t* strip(int layer, int head, int span) const {
    return memory_.as<uint8_t>() + span * span_bytes() + (static_cast<size_t>(layer) * heads_ + head) * strip_bytes_;
  }
  void write_key(uint8_t* keys, int offset, const float* key, float* scale) const;
  void write_value(uint8_t* values, int offset, const float* value, float* scale) const;

  int layers_, heads_, head_dim_, key_width_, value_width_, context_;
  CacheType type_;
  size_t strip_bytes_;
  Buffer memory_;
};

// One sequence being read or written: its cache, and how many of its tokens have been read.
class Sequence {
 public:
  Sequence(const Model& model, int context, CacheType type) : cache(model, context, type) {}
  int position() const { return position_; }
  void advance(int count) { position_ += count; }
  // Continues where another sequence of the same model stands.
  void follow(const Sequence& other) {
    cache.copy_from(other.cache, other.position());
    position_ = other.position();
  }
  // Forgets all but the first `position` tokens.
  void rewind(int position) { position_ = std::clamp(position, 0, position_); }
  // The cache's bytes for the tokens read so far, with zeros where a span is not full: what `restore` takes back.
  const uint8_t* state();
  size_t state_bytes() const { return cache.bytes(position_); }
  void restore(int position, const uint8_t* state);

  KvCache cache;

 private:
  int position_ = 0;
};

}  // namespace bitwright
