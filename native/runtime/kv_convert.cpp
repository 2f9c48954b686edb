// A cache of one type made from a cache of another: every key and value is read back as floats and written anew, so that
// the result is what the new type makes of them, with the old type's rounding in it.
#include <vector>

#include "bitwright/kv_cache.h"
#include "half.h"
#include "parallel.h"

namespace bitwright {

namespace {

constexpr int kVector = 4 * kPanelRows;  // bytes: four columns of all lanes

// The number at (column, lane) of a panel; the order of codes is that of kernels/cached.h.
float number_at(const uint8_t* panel, int column, int lane, CacheType type) {
  const int at = column * kPanelRows + lane, byte = lane * 4 + column % 4;
  if (type == CacheType::fp32) return reinterpret_cast<const float*>(panel)[at];
  if (type == CacheType::fp16) return half_to_float(reinterpret_cast<const uint16_t*>(panel)[at]);
  if (type == CacheType::int8) return static_cast<float>(panel[column / 4 * kVector + byte]) - 128.0f;
  const int both = panel[column / 8 * kVector + byte];
  return static_cast<float>(column / 4 % 2 == 0 ? both & 15 : both >> 4) - 7.5f;
}

}  // namespace

void KvCache::read(int layer, int head, int position, float* key, float* value) const {
  const int span = position / kAttentionSpan, offset = position % kAttentionSpan, lane = offset % kPanelRows;
  const uint8_t *keys_at = keys(layer, head, span) + key_bytes(offset - lane), *values_at = values(layer, head, span);
  const float key_scale = coded() ? key_scales(layer, head, span)[offset] : 1.0f;
  const float value_scale = coded() ? value_scales(layer, head, span)[offset] : 1.0f;
  for (int i = 0; i < head_dim_; i++) {
    key[i] = number_at(keys_at, i, lane, type_) * key_scale;
    value[i] = number_at(values_at + i / kPanelRows * value_panel_bytes(), offset, i % kPanelRows, type_) * value_scale;
  }
  if (!transformed()) return;
  turn_head(kernels(), key, head_dim_);
  turn_head(kernels(), value, head_dim_);
}

void KvCache::copy_from(const KvCache& other, int positions) {
  const size_t strips = static_cast<size_t>(layers_) * heads_;
  in_parallel(strips, strips * positions * head_dim_, [&](size_t begin, size_t end) {
    std::vector<float> key(head_dim_), value(head_dim_);
    for (size_t strip = begin; strip < end; strip++) {
      const int layer = static_cast<int>(strip) / heads_, head = static_cast<int>(strip) % heads_;
      for (int position = 0; position < positions; position++) {
        other.read(layer, head, position, key.data(), value.data());
        write(layer, head, position, key.data(), value.data());
      }
    }
  });
}

}  // namespace bitwright
