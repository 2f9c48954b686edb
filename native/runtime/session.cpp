#include "products.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>
#include <string>

namespace bitwright {

namespace {

int widest(const Model& model) { return std::max({model.hidden, model.heads * model.head_dim, model.intermediate}); }

// Tokens of a prompt taken at a time, a multiple of every tile: as many as have their int8 rows in a core's own cache.
int chunk_of(const Model& model) { return widest(model) <= 2048 ? 512 : 256; }

bool any_quantized(const Model& model) {
  return std::any_of(model.layers.begin(), model.layers.end(), [](const Layer& layer) {
    const auto matrices = {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down};
    return std::any_of(matrices.begin(), matrices.end(), [](const Matrix* matrix) { return matrix->quantized(); }) ||
           std::any_of(layer.experts.begin(), layer.experts.end(), [](const Expert& expert) {
             return expert.gate.quantized() || expert.up.quantized() || expert.down.quantized();
           });
  });
}

}  // namespace

RowForm::RowForm(int rows, int columns, int tile) {
  const size_t padded = round_up(rows, tile), blocks = (columns + kBlock - 1) / kBlock;
  const size_t lines = round_up(2 * static_cast<int>(padded), 2 * kPackedRows);  // int16 activations take two rows a token
  dense = Buffer(padded * columns * sizeof(float));
  codes = Buffer(lines * round_up(static_cast<int>(blocks), 2) * kBlock);
  scales = Buffer(lines * blocks * sizeof(float));
  negated_sums = Buffer(lines * blocks * sizeof(float));
  negated_totals = Buffer(lines * sizeof(float));
}

Session::Session(std::shared_ptr<const Model> model, const SessionOptions& options)
    : model_(std::move(model)),
      options_(options),
      kernels_(kernels()),
      quantized_(any_quantized(*model_)),
      team_(options.threads),
      chunk_(chunk_of(*model_)),
      rows_(chunk_, widest(*model_), kernels_.tile) {
  const int columns = widest(*model_), tile = kernels_.tile;
  const size_t padded = round_up(columns, kBlock);
  const bool matrix = kernels_.attention != nullptr;
  const int most = std::max(tile, matrix ? kMatrixTogether : 0);
  for (int i = 0; i < team_.size(); i++)
    scratch_.push_back({RowBuffer(1, columns, tile), std::vector<float>(columns), std::vector<float>(columns),
                        std::vector<uint8_t>(matmul_scratch_bytes(static_cast<int>(padded / kBlock))),
                        std::vector<float>(padded * kPanelRows), std::vector<float>(2 * chunk_ * kPanelRows),
                        FloatRows(chunk_, 2 * kGatedPanels * kPanelRows), FloatRows(most, kAttentionSpan), std::vector<float>(),
                        std::vector<float>(), std::vector<int8_t>(tile * kAttentionSpan),
                        std::vector<float>(tile * kAttentionSpan / kBlock), std::vector<float>(tile * kAttentionSpan / kBlock),
                        Buffer(matrix ? matrix_entries(kMatrixTogether, kAttentionSpan) * 2 : 0),
                        Buffer(matrix ? matrix_entries(kAttentionSpan, model_->head_dim) * 2 : 0),
                        Buffer(matrix ? matrix_entries(wide_head(), kAttentionSpan) * 2 : 0)});
  const auto rows_of = [this](int width) { return FloatRows(chunk_, width); };
  stream_ = rows_of(model_->hidden);
  block_ = rows_of(model_->hidden);
  queries_ = rows_of(model_->heads * model_->head_dim);
  attended_ = rows_of(model_->heads * model_->head_dim);
  keys_ = rows_of(model_->kv_heads * model_->head_dim);
  values_ = rows_of(model_->kv_heads * model_->head_dim);
  gate_ = rows_of(gate_stride());
  up_ = FloatRows(std::max(kFewRows, model_->experts_per_token), model_->intermediate);
  if (model_->experts > 0) {
    normed_ = rows_of(model_->hidden);
    router_logits_ = rows_of(model_->experts);
    chosen_.resize(static_cast<size_t>(chunk_) * model_->experts_per_token);
    routed_.resize(chosen_.size());
    first_routed_.resize(model_->experts + 1);
  }
  for (const Rope& rope : model_->ropes) angles_.emplace_back(chunk_ * rope.inverse_frequencies.size() * 2);
}

size_t Session::buffer_bytes() const {
  const auto size = [](const auto& vector) { return vector.capacity() * sizeof(vector[0]); };
  const auto rows = [](const RowForm& form) {
    return form.dense.size() + form.codes.size() + form.scales.size() + form.negated_sums.size() + form.negated_totals.size();
  };
  const auto both = [&](const RowBuffer& buffer) { return rows(buffer.plain) + rows(buffer.rotated); };
  size_t total = both(rows_) + query_tiles_.size() + size(partials_);
  for (const Scratch& own : scratch_)
    total += both(own.row) + size(own.line) + size(own.rotated) + size(own.codes) + size(own.panel) + size(own.pairs) +
             own.gated.bytes() + own.scores.bytes() + own.weights.size() + own.keys.size() + own.values.size() +
             size(own.partials) + size(own.span_weights) + size(own.weight_codes) + size(own.weight_units) +
             size(own.weight_sums);
  for (const auto* floats : {&stream_, &queries_, &keys_, &values_, &attended_, &gate_, &up_, &block_, &normed_, &router_logits_})
    total += floats->bytes();
  total += size(chosen_) + size(routed_);
  for (const auto& angles : angles_) total += size(angles);
  return total;
}

void Session::lap(int thread, Stage stage) {
  if (thread != 0) return;
  const auto now = Clock::now();
  stage_seconds_[stage] += std::chrono::duration<double>(now - last_lap_).count();
  last_lap_ = now;
}

void Session::check(const std::vector<Piece>& pieces) const {
  std::set<const Sequence*> seen;
  for (const Piece& piece : pieces) {
    if (piece.count < 1) throw std::invalid_argument("no tokens to read");
    if (!seen.insert(piece.sequence).second) throw std::invalid_argument("a sequence is given twice");
    if (piece.count > piece.sequence->cache.context() - piece.sequence->position())
      throw std::length_error("context of " + std::to_string(piece.sequence->cache.context()) + " tokens is full");
    for (int i = 0; i < piece.count; i++)
      if (piece.tokens[i] < 0 || piece.tokens[i] >= model_->vocabulary)
        throw std::out_of_range("token " + std::to_string(piece.tokens[i]) + " is not in a vocabulary of " +
                                std::to_string(model_->vocabulary));
  }
}

void Session::forward(const std::vector<Piece>& pieces, float* hidden, float* logits) {
  check(pieces);
  std::vector<int32_t> tokens;
  int done = 0;  // tokens of the piece at hand
  for (size_t at = 0; at < pieces.size();) {
    slices_.clear(), ends_.clear(), positions_.clear(), tokens.clear();
    while (at < pieces.size() && static_cast<int>(tokens.size()) < chunk_) {
      const Piece& piece = pieces[at];
      const int row = static_cast<int>(tokens.size()), now = std::min(piece.count - done, chunk_ - row);
      slices_.push_back({piece.sequence, row, now, piece.sequence->position()});
      for (int i = 0; i < now; i++) positions_.push_back(piece.sequence->position() + i);
      tokens.insert(tokens.end(), piece.tokens + done, piece.tokens + done + now);
      done += now;
      if (done < piece.count) break;
      ends_.push_back(row + now - 1);
      at++, done = 0;
    }
    run_chunk(tokens, hidden, logits);
    for (const Slice& slice : slices_) slice.sequence->advance(slice.count);
    if (hidden != nullptr) hidden += tokens.size() * model_->hidden;
    if (logits != nullptr) logits += ends_.size() * model_->vocabulary;
  }
}

void Session::run_chunk(const std::vector<int32_t>& tokens, float* hidden, float* logits) {
  last_lap_ = Clock::now();
  prepare_tiles();
  const int count = static_cast<int>(tokens.size()), width = model_->hidden;
  team_.run([&](int thread) {
    embed(thread, tokens);
    team_.barrier();
    lap(thread, kEmbedding);
    for (size_t layer = 0; layer < model_->layers.size(); layer++) run_layer(thread, static_cast<int>(layer), count);
    const Share share(count, thread, team_.size());
    for (int row = share.begin; hidden != nullptr && row < share.end; row++)
      final_row(row, hidden + static_cast<size_t>(row) * width);
    if (logits != nullptr && !ends_.empty()) write_logits(thread, logits);
  });
  lap(0, kHead);
}

const float* Session::final_row(int row, float* line) const {
  const int width = model_->hidden;
  kernels_.rms_norm(stream_.data() + static_cast<size_t>(row) * width, model_->final_norm.data(), width, model_->epsilon, line);
  return line;
}

std::vector<Session::Product> Session::head_products(float* logits) const {
  std::vector<Product> products;
  for (const Matrix& block : model_->output()) {
    if (!block.empty()) products.push_back({&block, logits, model_->vocabulary, false, nullptr});
    logits += block.rows();
  }
  return products;
}

void Session::write_logits(int thread, float* logits) {
  const int rows = static_cast<int>(ends_.size());
  multiply(thread, rows, model_->hidden, head_products(logits),
           [&](int row, float* line) { return final_row(ends_[row], line); });
  if (model_->logit_softcap > 0) cap_logits(thread, rows, logits);
}

void Session::cap_logits(int thread, int rows, float* logits) {
  team_.barrier();
  const Share share(rows, thread, team_.size());
  for (int row = share.begin; row < share.end; row++)
    kernels_.softcap(logits + static_cast<size_t>(row) * model_->vocabulary, model_->vocabulary, model_->logit_softcap);
}

void Session::project(const float* hidden, int rows, float* logits) {
  const int width = model_->hidden, vocabulary = model_->vocabulary;
  for (int done = 0; done < rows; done += chunk_) {
    const int now = std::min(chunk_, rows - done);
    const float* from = hidden + static_cast<size_t>(done) * width;
    float* to = logits + static_cast<size_t>(done) * vocabulary;
    team_.run([&](int thread) {
      multiply(thread, now, width, head_products(to), [&](int row, float*) { return from + static_cast<size_t>(row) * width; });
      if (model_->logit_softcap > 0) cap_logits(thread, now, to);
    });
  }
}

void Session::embed(int thread, const std::vector<int32_t>& tokens) {
  const Share share(static_cast<int>(tokens.size()), thread, team_.size());
  for (int i = share.begin; i < share.end; i++) {
    float* row = stream_.data() + static_cast<size_t>(i) * model_->hidden;
    int word = tokens[i], block = 0;
    while (word >= model_->embedding[block].rows()) word -= model_->embedding[block++].rows();
    model_->embedding[block].read_row(word, row);
    if (model_->embedding_scale != 1.0f) kernels_.scale(row, model_->hidden, model_->embedding_scale);
    prepare_angles(i);
  }
}

void Session::prepare_angles(int row) {
  for (size_t r = 0; r < angles_.size(); r++) {
    const Rope& rope = model_->ropes[r];
    const size_t half = rope.inverse_frequencies.size();
    float* out = angles_[r].data() + static_cast<size_t>(row) * half * 2;
    for (size_t i = 0; i < half; i++) {
      const float angle = static_cast<float>(positions_[row]) * rope.inverse_frequencies[i];
      out[i] = std::cos(angle) * rope.factor;
      out[half + i] = std::sin(angle) * rope.factor;
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
  lap(thread, kQueryKeyValue);
  prepare_attention(thread, layer, index);
  team_.barrier();
  attend(thread, layer, index);
  team_.barrier();
  lap(thread, kAttention);
  const bool post = !layer.post_attention_norm.empty();
  multiply(thread, count, wide, {{&layer.o, post ? block_.data() : stream_.data(), width, !post, &layer.o_bias}},
           [&](int row, float* line) { return attended(thread, row, layer, line); });
  team_.barrier();
  if (post) finish_block(thread, count, layer.post_attention_norm);
  lap(thread, kOutput);
  if (layer.experts.empty())
    run_mlp(thread, layer, count);
  else
    run_experts(thread, layer, count);
}

void Session::run_mlp(int thread, const Layer& layer, int count) {
  const int width = model_->hidden, inner = model_->intermediate;
  const auto normed = [&](int row, float* line) {
    kernels_.rms_norm(stream_.data() + static_cast<size_t>(row) * width, layer.mlp_norm.data(), width, model_->epsilon, line);
    return static_cast<const float*>(line);
  };
  multiply_opening(thread, count, layer.gate, layer.up, normed);
  team_.barrier();
  lap(thread, kGateUp);
  const bool post = !layer.post_mlp_norm.empty();
  multiply(thread, count, inner, {{&layer.down, post ? block_.data() : stream_.data(), width, !post, nullptr}},
           [&](int row, float* line) { return opened(row, count <= kFewRows, line); });
  team_.barrier();
  if (post) finish_block(thread, count, layer.post_mlp_norm);
  lap(thread, kDown);
}

// What the down projection reads of a row: what the gate let through, computed already where rows are many.
const float* Session::opened(int row, bool few, float* line) const {
  const float* gate = gate_.data() + static_cast<size_t>(row) * gate_stride();
  if (!few) return gate;
  const auto gated = model_->gelu ? kernels_.gated_gelu : kernels_.gated_silu;
  gated(gate, up_.data() + static_cast<size_t>(row) * model_->intermediate, model_->intermediate, line);
  return line;
}

// stream += norm(block), for models that norm what a block adds.
void Session::finish_block(int thread, int count, const std::vector<float>& post_norm) {
  const int width = model_->hidden;
  float* line = scratch_[thread].line.data();
  const Share share(count, thread, team_.size());
  for (int row = share.begin; row < share.end; row++) {
    const size_t at = static_cast<size_t>(row) * width;
    kernels_.rms_norm(block_.data() + at, post_norm.data(), width, model_->epsilon, line);
    for (int i = 0; i < width; i++) stream_.data()[at + i] += line[i];
  }
  team_.barrier();
}

}  // namespace bitwright
