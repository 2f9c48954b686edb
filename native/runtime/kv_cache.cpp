#include "bitwright/kv_cache.h"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace bitwright {

namespace {

constexpr int kLargestHead = kLargestHadamard;
constexpr int kVector = 4 * kPanelRows;  // bytes: four columns of all lanes

size_t bytes_of(int count, int bits) { return static_cast<size_t>(count) * bits / 8; }

// Codes of one head's channels; returns their scale. See cached_zero: eight bits have their zero at 128, four at 7.5.
float encode(const float* x, int n, int bits, uint8_t* codes) {
  float bound = 0;
  for (int i = 0; i < n; i++) bound = std::fabs(x[i]) > bound ? std::fabs(x[i]) : bound;
  const float most = bits == 8 ? 127.0f : 7.5f, inverse = bound > 0 ? most / bound : 0.0f;
  const float shift = bits == 8 ? 128.5f : 8.0f;  // floor(x + 1/2) rounds; four bits: level - 7.5 for level = floor(x + 8)
  for (int i = 0; i < n; i++) {
    const float level = x[i] * inverse + shift, highest = static_cast<float>((1 << bits) - 1);
    codes[i] = static_cast<uint8_t>(level > 0 ? (level < highest ? level : highest) : 0.0f);  // NaN becomes 0
  }
  return bound / most;
}

// The order of codes is that of kernels/cached.h. A key is one lane of its panel: four columns, or four pairs of columns
// whose nibbles share bytes, lie together. A value is one column of all lanes; its neighbour in the byte is four
// positions away.
void place_key(uint8_t* panel, int lane, int width, int bits, const uint8_t* codes) {
  panel += lane * 4;
  if (bits == 8) {
    for (int i = 0; i < width; i += 4, panel += kVector) std::memcpy(panel, codes + i, 4);
    return;
  }
  for (int i = 0; i < width; i += 8, panel += kVector)
    for (int j = 0; j < 4; j++) panel[j] = static_cast<uint8_t>(codes[i + j] | codes[i + j + 4] << 4);
}

void place_value(uint8_t* panel, int offset, int channels, int bits, const uint8_t* codes) {
  panel += offset / (bits == 8 ? 4 : 8) * kVector + offset % 4;
  const int shift = bits == 8 ? 0 : offset / 4 % 2 * 4, kept = bits == 8 ? 0 : 0xF0 >> shift;
  for (int i = 0; i < channels; i++) panel[i * 4] = static_cast<uint8_t>((panel[i * 4] & kept) | codes[i] << shift);
}

}  // namespace

KvCache::KvCache(const Model& model, int context, CacheType type)
    : layers_(static_cast<int>(model.layers.size())),
      heads_(model.kv_heads),
      head_dim_(model.head_dim),
      context_(context),
      type_(type) {
  if (head_dim_ > kLargestHead) throw std::invalid_argument("a head of " + std::to_string(head_dim_) + " channels is too large");
  key_width_ = coded() ? round_up(head_dim_, kBlock) : head_dim_;
  value_width_ = round_up(head_dim_, kPanelRows);
  strip_bytes_ = kAttentionSpan * (bytes_of(key_width_ + value_width_, bits()) + (coded() ? 2 * sizeof(float) : 0));
  memory_ = Buffer(bytes(context));
}

const float* KvCache::key_scales(int layer, int head, int span) const {
  const size_t codes = kAttentionSpan * bytes_of(key_width_ + value_width_, bits());
  return reinterpret_cast<const float*>(strip(layer, head, span) + codes);
}

void KvCache::write_key(uint8_t* keys, int offset, const float* key, float* scale) const {
  const int lane = offset % kPanelRows;
  uint8_t* panel = keys + key_bytes(offset - lane);
  if (coded()) {
    uint8_t codes[kLargestHead] = {};
    *scale = encode(key, head_dim_, bits(), codes);
    place_key(panel, lane, key_width_, bits(), codes);
  } else if (type_ == CacheType::fp32) {
    for (int i = 0; i < head_dim_; i++) reinterpret_cast<float*>(panel)[i * kPanelRows + lane] = key[i];
  } else {
    uint16_t half[kLargestHead];
    kernels().to_fp16(key, head_dim_, half);
    for (int i = 0; i < head_dim_; i++) reinterpret_cast<uint16_t*>(panel)[i * kPanelRows + lane] = half[i];
  }
}

void KvCache::write_value(uint8_t* values, int offset, const float* value, float* scale) const {
  uint8_t codes[kLargestHead];
  uint16_t half[kLargestHead];
  if (coded()) *scale = encode(value, head_dim_, bits(), codes);
  if (type_ == CacheType::fp16) kernels().to_fp16(value, head_dim_, half);
  for (int first = 0; first < head_dim_; first += kPanelRows, values += value_panel_bytes()) {
    const int channels = std::min(kPanelRows, head_dim_ - first);
    const size_t at = static_cast<size_t>(offset) * kPanelRows;
    if (coded())
      place_value(values, offset, channels, bits(), codes + first);
    else if (type_ == CacheType::fp32)
      std::memcpy(reinterpret_cast<float*>(values) + at, value + first, channels * sizeof(float));
    else
      std::memcpy(reinterpret_cast<uint16_t*>(values) + at, half + first, channels * sizeof(uint16_t));
  }
}

void KvCache::write(int layer, int head, int position, const float* key, const float* value) {
  const int span = position / kAttentionSpan, offset = position % kAttentionSpan;
  auto* keys_at = const_cast<uint8_t*>(keys(layer, head, span));
  auto* values_at = const_cast<uint8_t*>(values(layer, head, span));
  auto* key_scale = const_cast<float*>(key_scales(layer, head, span)) + offset;
  auto* value_scale = const_cast<float*>(value_scales(layer, head, span)) + offset;
  if (!transformed()) {
    write_key(keys_at, offset, key, key_scale);
    write_value(values_at, offset, value, value_scale);
    return;
  }
  float line[kLargestHead];
  std::memcpy(line, key, head_dim_ * sizeof(float));
  turn_head(kernels(), line, head_dim_);
  write_key(keys_at, offset, line, key_scale);
  std::memcpy(line, value, head_dim_ * sizeof(float));
  turn_head(kernels(), line, head_dim_);
  write_value(values_at, offset, line, value_scale);
}

const uint8_t* Sequence::state() {
  const std::vector<float> nothing(cache.head_dim());
  const int end = round_up(position_, kAttentionSpan);
  for (int position = position_; position < end; position++)
    for (int layer = 0; layer < cache.layers(); layer++)
      for (int head = 0; head < cache.heads(); head++) cache.write(layer, head, position, nothing.data(), nothing.data());
  return cache.data();
}

void Sequence::restore(int position, const uint8_t* state) {
  if (position < 0 || position > cache.context()) throw std::invalid_argument("the state does not fit the context");
  std::memcpy(cache.data(), state, cache.bytes(position));
  position_ = position;
}

}  // namespace bitwright
