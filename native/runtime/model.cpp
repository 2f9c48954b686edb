#include "bitwright/model.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace bitwright {

namespace {

void require(bool holds, const std::string& what) {
  if (!holds) throw std::invalid_argument(what);
}

void require_shape(const Matrix& matrix, int rows, int columns, const std::string& name) {
  require(!matrix.empty(), name + " is missing");
  require(matrix.rows() == rows && matrix.columns() == columns, name + " is " + std::to_string(matrix.rows()) + " x " +
                                                                    std::to_string(matrix.columns()) + ", not " +
                                                                    std::to_string(rows) + " x " + std::to_string(columns));
}

void require_rows(const RowBlocks& blocks, int rows, int columns, const std::string& name) {
  int found = 0;
  for (const Matrix& block : blocks) {
    require(block.empty() || block.columns() == columns, name + " has rows of different lengths");
    found += block.rows();
  }
  require(!blocks[0].empty(), name + " is missing");
  require(found == rows && blocks[0].columns() == columns, name + " is " + std::to_string(found) + " x " +
                                                               std::to_string(blocks[0].columns()) + ", not " +
                                                               std::to_string(rows) + " x " + std::to_string(columns));
}

void require_length(const std::vector<float>& vector, int length, bool optional, const std::string& name) {
  if (optional && vector.empty()) return;
  require(static_cast<int>(vector.size()) == length,
          name + " has " + std::to_string(vector.size()) + " values, not " + std::to_string(length));
}

}  // namespace

size_t Model::bytes_per_token() const {
  size_t total = 0;
  for (const Matrix& block : output()) total += block.bytes();
  for (const Layer& layer : layers) {
    for (const Matrix* matrix : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down, &layer.router})
      total += matrix->bytes();
    size_t of_all = 0;
    for (const Expert& expert : layer.experts) of_all += expert.gate.bytes() + expert.up.bytes() + expert.down.bytes();
    if (experts > 0) total += of_all * experts_per_token / experts;
  }
  return total;
}

void Model::check_mlp(const Layer& layer, const std::string& at) const {
  if (experts == 0) {
    require_shape(layer.gate, intermediate, hidden, at + "gate");
    require_shape(layer.up, intermediate, hidden, at + "up");
    require_shape(layer.down, hidden, intermediate, at + "down");
    return;
  }
  require_shape(layer.router, experts, hidden, at + "router");
  require(static_cast<int>(layer.experts.size()) == experts, at + "has another number of experts");
  require(layer.post_mlp_norm.empty(), at + "norms what its experts add, which is not computed");
  for (int i = 0; i < experts; i++) {
    const std::string of = at + "expert " + std::to_string(i) + " ";
    require_shape(layer.experts[i].gate, intermediate, hidden, of + "gate");
    require_shape(layer.experts[i].up, intermediate, hidden, of + "up");
    require_shape(layer.experts[i].down, hidden, intermediate, of + "down");
  }
}

void Model::check() const {
  require(heads > 0 && kv_heads > 0 && heads % kv_heads == 0, "query heads must be a multiple of key heads");
  require(experts >= 0 && experts_per_token >= (experts > 0) && experts_per_token <= std::min(experts, kMostExpertsPerToken),
          "a token has no such experts");
  const int wide = heads * head_dim, narrow = kv_heads * head_dim;
  require_rows(embedding, vocabulary, hidden, "embedding");
  if (!head[0].empty()) require_rows(head, vocabulary, hidden, "head");
  require_length(final_norm, hidden, false, "final_norm");
  for (size_t i = 0; i < layers.size(); i++) {
    const Layer& layer = layers[i];
    const std::string at = "layer " + std::to_string(i) + " ";
    require_shape(layer.q, wide, hidden, at + "q");
    require_shape(layer.k, narrow, hidden, at + "k");
    require_shape(layer.v, narrow, hidden, at + "v");
    require_shape(layer.o, hidden, wide, at + "o");
    check_mlp(layer, at);
    require_length(layer.attention_norm, hidden, false, at + "attention_norm");
    require_length(layer.mlp_norm, hidden, false, at + "mlp_norm");
    require_length(layer.post_attention_norm, hidden, true, at + "post_attention_norm");
    require_length(layer.post_mlp_norm, hidden, true, at + "post_mlp_norm");
    require_length(layer.q_norm, head_dim, true, at + "q_norm");
    require_length(layer.k_norm, head_dim, true, at + "k_norm");
    require_length(layer.q_bias, wide, true, at + "q_bias");
    require_length(layer.k_bias, narrow, true, at + "k_bias");
    require_length(layer.v_bias, narrow, true, at + "v_bias");
    require_length(layer.o_bias, hidden, true, at + "o_bias");
    require(layer.rope >= 0 && layer.rope < static_cast<int>(ropes.size()), at + "names a rope that does not exist");
    require(layer.window >= 0, at + "window is negative");
  }
  for (const Rope& rope : ropes)
    require(static_cast<int>(rope.inverse_frequencies.size()) * 2 <= head_dim, "a rope turns more channels than a head has");
}

}  // namespace bitwright
