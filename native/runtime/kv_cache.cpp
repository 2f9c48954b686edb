#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "bitwright/session.h"

namespace bitwright {

namespace {
int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }
}  // namespace

KvCache::KvCache(const Model& model, int context, DenseType type)
    : heads_(model.kv_heads),
      head_dim_(model.head_dim),
      padded_dim_(round_up(model.head_dim, kPanelRows)),
      context_(round_up(context, kPanelRows)),
      type_(type) {
  const size_t slots = model.layers.size() * heads_;
  keys_ = Buffer(slots * context_ * head_dim_ * unit());
  values_ = Buffer(slots * context_ * padded_dim_ * unit());
  if (type_ == DenseType::int8) scales_ = Buffer(slots * 2 * context_ * sizeof(float));
}

const void* KvCache::key_panel(int layer, int head, int position) const {
  return keys_.as<uint8_t>() + (slot(layer, head) * context_ + position) * head_dim_ * unit();
}

const void* KvCache::value_panel(int layer, int head, int block, int position) const {
  const size_t panel = slot(layer, head) * (padded_dim_ / kPanelRows) + block;
  return values_.as<uint8_t>() + (panel * context_ + position) * kPanelRows * unit();
}

const float* KvCache::scales(int layer, int head, int which) const {
  return scales_.as<float>() + (slot(layer, head) * 2 + which) * context_;
}

namespace {

// A head's channels in the cache's type; returns the scale (1 unless int8).
float convert(const float* x, int n, DenseType type, void* out) {
  if (type == DenseType::fp32) std::memcpy(out, x, n * sizeof(float));
  if (type == DenseType::fp16) kernels().to_fp16(x, n, static_cast<uint16_t*>(out));
  if (type != DenseType::int8) return 1.0f;
  float bound = 0;
  for (int i = 0; i < n; i++) bound = std::fmax(bound, std::fabs(x[i]));
  const float inverse = bound > 0 ? 127.0f / bound : 0.0f;
  for (int i = 0; i < n; i++) static_cast<int8_t*>(out)[i] = static_cast<int8_t>(std::lrint(x[i] * inverse));
  return bound / 127.0f;
}

}  // namespace

void KvCache::write(int layer, int head, int position, const float* key, const float* value) {
  const int size = unit(), lane = position % kPanelRows;
  std::vector<uint8_t> row(static_cast<size_t>(padded_dim_) * 4);
  const float key_scale = convert(key, head_dim_, type_, row.data());
  auto* panel = static_cast<uint8_t*>(const_cast<void*>(key_panel(layer, head, position - lane)));
  for (int i = 0; i < head_dim_; i++) std::memcpy(panel + (i * kPanelRows + lane) * size, row.data() + i * size, size);
  const float value_scale = convert(value, head_dim_, type_, row.data());
  for (int block = 0; block * kPanelRows < head_dim_; block++) {
    const int channels = std::min(kPanelRows, head_dim_ - block * kPanelRows);
    std::memcpy(const_cast<void*>(value_panel(layer, head, block, position)), row.data() + block * kPanelRows * size,
                static_cast<size_t>(channels) * size);
  }
  if (type_ == DenseType::int8) {
    const_cast<float*>(key_scales(layer, head))[position] = key_scale;
    const_cast<float*>(value_scales(layer, head))[position] = value_scale;
  }
}

}  // namespace bitwright
