// Causal attention over the cache, softmax computed span by span (online softmax: Milakov and Gimelshein 2018,
// arXiv:1805.02867), for tiles of rows that share one key head.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "bitwright/session.h"

namespace bitwright {

void Session::turn(float* head, const Rope& rope, const float* angles) const {
  const size_t half = rope.inverse_frequencies.size();
  for (size_t i = 0; i < half; i++) {
    const float cosine = angles[2 * i], sine = angles[2 * i + 1], a = head[i], b = head[i + half];
    head[i] = a * cosine - b * sine;
    head[i + half] = b * cosine + a * sine;
  }
}

const float* Session::angles(const Layer& layer, int token) const {
  return angles_[layer.rope].data() + static_cast<size_t>(token) * model_->ropes[layer.rope].inverse_frequencies.size() * 2;
}

void Session::write_cache(int thread, int index, int count) {
  const Layer& layer = model_->layers[index];
  const int dim = model_->head_dim, heads = model_->kv_heads;
  const Share share(count * heads, thread, team_.size());
  for (int item = share.begin; item < share.end; item++) {
    const int token = item / heads, head = item % heads;
    float* key = keys_.data() + static_cast<size_t>(item) * dim;
    if (!layer.k_norm.empty()) kernels_.rms_norm(key, layer.k_norm.data(), dim, model_->epsilon, key);
    turn(key, model_->ropes[layer.rope], angles(layer, token));
    cache_.write(index, head, position_ + token, key, values_.data() + static_cast<size_t>(item) * dim);
  }
}

void Session::attend(int thread, int index, int count) {
  const int heads = model_->heads, group = heads / model_->kv_heads, threads = team_.size();
  if (count == 1) {  // few rows: each thread takes its share of query heads, cut where the key head changes
    const Share share(heads, thread, threads);
    for (int head = share.begin; head < share.end;) {
      const int end = std::min({share.end, (head / group + 1) * group, head + kernels_.tile});
      attend_rows(thread, index, 0, 1, head, end - head);
      head = end;
    }
    return;
  }
  const int heads_a_tile = std::min(group, kernels_.tile), tokens_a_tile = kernels_.tile / heads_a_tile;
  int item = 0;
  for (int token = 0; token < count; token += tokens_a_tile)
    for (int head = 0; head < heads;) {
      const int end = std::min((head / group + 1) * group, head + heads_a_tile);
      // Later tokens see more positions: dealing the tiles out in turn keeps the threads even.
      if (item++ % threads == thread) attend_rows(thread, index, token, std::min(tokens_a_tile, count - token), head, end - head);
      head = end;
    }
}

// Row t * heads + h of the tile holds head first_head + h of token first_token + t, channel k at [k * tile + row].
int Session::fill_queries(Scratch& scratch, const Layer& layer, int first_token, int tokens, int first_head, int heads) {
  const int dim = model_->head_dim, tile = kernels_.tile;
  float* line = scratch.line.data();
  for (int row = 0; row < tokens * heads; row++) {
    const int token = first_token + row / heads, head = first_head + row % heads;
    std::memcpy(line, queries_.data() + (static_cast<size_t>(token) * model_->heads + head) * dim, dim * sizeof(float));
    if (!layer.q_norm.empty()) kernels_.rms_norm(line, layer.q_norm.data(), dim, model_->epsilon, line);
    turn(line, model_->ropes[layer.rope], angles(layer, token));
    for (int k = 0; k < dim; k++) scratch.queries[static_cast<size_t>(k) * tile + row] = line[k] * model_->attention_scale;
  }
  return tokens * heads;
}

namespace {

// Running softmax of one row: exp(x - peak) so far adds up to `total`.
struct Softmax {
  float peak = -std::numeric_limits<float>::infinity(), total = 0.0f;
};

void multiply_by(float* x, const float* factors, int n) {
  for (int i = 0; i < n; i++) x[i] *= factors[i];
}

}  // namespace

void Session::attend_rows(int thread, int index, int first_token, int tokens, int first_head, int heads) {
  Scratch& scratch = scratch_[thread];
  const Layer& layer = model_->layers[index];
  const int dim = model_->head_dim, blocks = (dim + kPanelRows - 1) / kPanelRows, wide = blocks * kPanelRows;
  const int kv_head = first_head / (model_->heads / model_->kv_heads);
  const int rows = fill_queries(scratch, layer, first_token, tokens, first_head, heads);
  const bool scaled = cache_.type() == DenseType::int8;
  float *scores = scratch.scores.data(), *sums = scratch.sums.data();
  std::fill(sums, sums + static_cast<size_t>(rows) * wide, 0.0f);
  std::vector<Softmax> softmax(rows);

  const auto visible_from = [&](int row) {
    const int position = position_ + first_token + row / heads;
    return layer.window > 0 ? std::max(0, position - layer.window + 1) : 0;
  };
  const int start = visible_from(0), end = position_ + first_token + tokens;
  for (int base = start / kAttentionSpan * kAttentionSpan; base < end; base += kAttentionSpan) {
    const int count = std::min(kAttentionSpan, end - base);
    for (int p = std::max(0, start - base) / kPanelRows * kPanelRows; p < count; p += kPanelRows)
      kernels_.dense_panel(cache_.type(), cache_.key_panel(index, kv_head, base + p), dim,
                           DenseInput{scratch.queries.data(), kernels_.tile, false}, rows,
                           Output{scores + p, kAttentionSpan, false});
    for (int row = 0; row < rows; row++) {
      float* x = scores + static_cast<size_t>(row) * kAttentionSpan;
      const int low = std::clamp(visible_from(row) - base, 0, count);
      const int high = std::clamp(position_ + first_token + row / heads + 1 - base, 0, count);
      if (low < high) {
        if (scaled) multiply_by(x + low, cache_.key_scales(index, kv_head) + base + low, high - low);
        if (model_->attention_softcap > 0) kernels_.softcap(x + low, high - low, model_->attention_softcap);
        const float peak = std::max(softmax[row].peak, kernels_.maximum(x + low, high - low));
        const float fade = std::exp(softmax[row].peak - peak);
        kernels_.scale(sums + static_cast<size_t>(row) * wide, wide, fade);
        softmax[row] = {peak, softmax[row].total * fade + kernels_.exp_shifted(x + low, high - low, peak)};
        if (scaled) multiply_by(x + low, cache_.value_scales(index, kv_head) + base + low, high - low);
      }
      std::fill(x, x + low, 0.0f);
      std::fill(x + std::max(low, high), x + count, 0.0f);
    }
    for (int block = 0; block < blocks; block++)
      kernels_.dense_panel(cache_.type(), cache_.value_panel(index, kv_head, block, base), count, DenseInput{scores, 1, true},
                           rows, Output{sums + block * kPanelRows, wide, true});
  }
  for (int row = 0; row < rows; row++) {
    float* out =
        attended_.data() + (static_cast<size_t>(first_token + row / heads) * model_->heads + first_head + row % heads) * dim;
    for (int i = 0; i < dim; i++) out[i] = sums[static_cast<size_t>(row) * wide + i] / softmax[row].total;
  }
}

}  // namespace bitwright
