#include "products.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace bitwright {

namespace {

constexpr int kChunk = 192;  // tokens of a prompt taken at a time: a multiple of every tile, small enough for the cache

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

int widest(const Model& model) { return std::max({model.hidden, model.heads * model.head_dim, model.intermediate}); }

}  // namespace

RowForm::RowForm(int rows, int columns, int tile) {
  const size_t padded = round_up(static_cast<size_t>(rows), tile), blocks = (columns + kBlock - 1) / kBlock;
  dense = Buffer(padded * columns * sizeof(float));
  codes = Buffer(2 * padded * blocks * kBlock);  // twice: int16 activations take two rows a token
  scales = Buffer(2 * padded * blocks * sizeof(float));
  negated_sums = Buffer(2 * padded * blocks * sizeof(float));
}

Session::Session(std::shared_ptr<const Model> model, const SessionOptions& options)
    : model_(std::move(model)),
      options_(options),
      kernels_(kernels()),
      team_(options.threads),
      cache_(*model_, options.context, options.cache),
      rows_(kChunk, widest(*model_), kernels_.tile) {
  const size_t columns = widest(*model_), padded = round_up(columns, kBlock), tile = kernels_.tile;
  const size_t head = round_up(model_->head_dim, kPanelRows);
  for (int i = 0; i < team_.size(); i++)
    scratch_.push_back(
        {RowBuffer(1, static_cast<int>(columns), kernels_.tile), std::vector<float>(columns), std::vector<float>(columns),
         std::vector<uint8_t>(matmul_scratch_bytes(static_cast<int>(padded / kBlock))), std::vector<float>(padded * kPanelRows),
         std::vector<float>(2 * kChunk * kPanelRows), std::vector<float>(head * tile), std::vector<float>(tile * kAttentionSpan),
         std::vector<float>(tile * head)});
  const auto rows_of = [](int width) { return std::vector<float>(static_cast<size_t>(kChunk) * width); };
  stream_ = rows_of(model_->hidden);
  block_ = rows_of(model_->hidden);
  queries_ = rows_of(model_->heads * model_->head_dim);
  attended_ = rows_of(model_->heads * model_->head_dim);
  keys_ = rows_of(model_->kv_heads * model_->head_dim);
  values_ = rows_of(model_->kv_heads * model_->head_dim);
  gate_ = rows_of(model_->intermediate);
  up_ = rows_of(model_->intermediate);
  for (const Rope& rope : model_->ropes) angles_.push_back(rows_of(static_cast<int>(rope.inverse_frequencies.size()) * 2));
}

void Session::rewind(int position) { position_ = std::clamp(position, 0, position_); }

void Session::forward(const int32_t* tokens, int count, float* hidden, float* logits) {
  if (count > options_.context - position_)
    throw std::length_error("context of " + std::to_string(options_.context) + " tokens is full");
  for (int i = 0; i < count; i++)
    if (tokens[i] < 0 || tokens[i] >= model_->vocabulary)
      throw std::out_of_range("token " + std::to_string(tokens[i]) + " is not in a vocabulary of " +
                              std::to_string(model_->vocabulary));
  for (int done = 0; done < count; done += kChunk) {
    const int now = std::min(kChunk, count - done);
    float* rows = hidden == nullptr ? nullptr : hidden + static_cast<size_t>(done) * model_->hidden;
    run_chunk(tokens + done, now, rows, done + now == count ? logits : nullptr);
    position_ += now;
  }
}

void Session::run_chunk(const int32_t* tokens, int count, float* hidden, float* logits) {
  prepare_angles(count);
  const int width = model_->hidden;
  const auto final_row = [&](int row, float* line) {
    kernels_.rms_norm(stream_.data() + static_cast<size_t>(row) * width, model_->final_norm.data(), width, model_->epsilon, line);
    return static_cast<const float*>(line);
  };
  team_.run([&](int thread) {
    embed(thread, tokens, count);
    team_.barrier();
    for (size_t layer = 0; layer < model_->layers.size(); layer++) run_layer(thread, static_cast<int>(layer), count);
    if (hidden != nullptr) {
      const Share share(count, thread, team_.size());
      for (int row = share.begin; row < share.end; row++) final_row(row, hidden + static_cast<size_t>(row) * width);
    }
    if (logits != nullptr)
      multiply(thread, 1, width, {{&model_->output(), logits, model_->vocabulary, false, nullptr}},
               [&](int, float* line) { return final_row(count - 1, line); });
  });
  if (logits != nullptr && model_->logit_softcap > 0) kernels_.softcap(logits, model_->vocabulary, model_->logit_softcap);
}

void Session::project(const float* hidden, int rows, float* logits) {
  const int width = model_->hidden, vocabulary = model_->vocabulary;
  for (int done = 0; done < rows; done += kChunk) {
    const int now = std::min(kChunk, rows - done);
    const float* from = hidden + static_cast<size_t>(done) * width;
    float* to = logits + static_cast<size_t>(done) * vocabulary;
    team_.run([&](int thread) {
      multiply(thread, now, width, {{&model_->output(), to, vocabulary, false, nullptr}},
               [&](int row, float*) { return from + static_cast<size_t>(row) * width; });
      team_.barrier();
      const Share share(now, thread, team_.size());
      for (int row = share.begin; model_->logit_softcap > 0 && row < share.end; row++)
        kernels_.softcap(to + static_cast<size_t>(row) * vocabulary, vocabulary, model_->logit_softcap);
    });
  }
}

void Session::embed(int thread, const int32_t* tokens, int count) {
  const Share share(count, thread, team_.size());
  for (int i = share.begin; i < share.end; i++) {
    float* row = stream_.data() + static_cast<size_t>(i) * model_->hidden;
    model_->embedding.read_row(tokens[i], row);
    if (model_->embedding_scale != 1.0f) kernels_.scale(row, model_->hidden, model_->embedding_scale);
  }
}

void Session::prepare_angles(int count) {
  for (size_t r = 0; r < angles_.size(); r++) {
    const Rope& rope = model_->ropes[r];
    float* out = angles_[r].data();
    for (int token = 0; token < count; token++)
      for (const float frequency : rope.inverse_frequencies) {
        const float angle = static_cast<float>(position_ + token) * frequency;
        *out++ = std::cos(angle) * rope.factor;
        *out++ = std::sin(angle) * rope.factor;
      }
  }
}

void Session::run_layer(int thread, int index, int count) {
  const Layer& layer = model_->layers[index];
  const int width = model_->hidden, wide = model_->heads * model_->head_dim, narrow = model_->kv_heads * model_->head_dim;
  multiply(thread, count, width,
           {{&layer.q, queries_.data(), wide, false, &layer.q_bias},
            {&layer.k, keys_.data(), narrow, false, &layer.k_bias},
            {&layer.v, values_.data(), narrow, false, &layer.v_bias}},
           [&](int row, float* line) {
             kernels_.rms_norm(stream_.data() + static_cast<size_t>(row) * width, layer.attention_norm.data(), width,
                               model_->epsilon, line);
             return static_cast<const float*>(line);
           });
  team_.barrier();
  write_cache(thread, index, count);
  team_.barrier();
  attend(thread, index, count);
  team_.barrier();
  const bool post = !layer.post_attention_norm.empty();
  multiply(thread, count, wide, {{&layer.o, post ? block_.data() : stream_.data(), width, !post, &layer.o_bias}},
           [&](int row, float*) { return attended_.data() + static_cast<size_t>(row) * wide; });
  team_.barrier();
  if (post) finish_block(thread, count, layer.post_attention_norm);
  run_mlp(thread, layer, count);
}

void Session::run_mlp(int thread, const Layer& layer, int count) {
  const int width = model_->hidden, inner = model_->intermediate;
  multiply(
      thread, count, width, {{&layer.gate, gate_.data(), inner, false, nullptr}, {&layer.up, up_.data(), inner, false, nullptr}},
      [&](int row, float* line) {
        kernels_.rms_norm(stream_.data() + static_cast<size_t>(row) * width, layer.mlp_norm.data(), width, model_->epsilon, line);
        return static_cast<const float*>(line);
      });
  team_.barrier();
  const bool post = !layer.post_mlp_norm.empty();
  multiply(thread, count, inner, {{&layer.down, post ? block_.data() : stream_.data(), width, !post, nullptr}},
           [&](int row, float* line) {
             const auto gated = model_->gelu ? kernels_.gated_gelu : kernels_.gated_silu;
             const size_t at = static_cast<size_t>(row) * inner;
             gated(gate_.data() + at, up_.data() + at, inner, line);
             return static_cast<const float*>(line);
           });
  team_.barrier();
  if (post) finish_block(thread, count, layer.post_mlp_norm);
}

// stream += norm(block), for models that norm what a block adds.
void Session::finish_block(int thread, int count, const std::vector<float>& post_norm) {
  const int width = model_->hidden;
  float* line = scratch_[thread].line.data();
  const Share share(count, thread, team_.size());
  for (int row = share.begin; row < share.end; row++) {
    const size_t at = static_cast<size_t>(row) * width;
    kernels_.rms_norm(block_.data() + at, post_norm.data(), width, model_->epsilon, line);
    for (int i = 0; i < width; i++) stream_[at + i] += line[i];
  }
  team_.barrier();
}

}  // namespace bitwright
