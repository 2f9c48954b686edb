// A decoder-only transformer as data: what src/bitwright/models/architecture.py describes, with its weights.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "bitwright/matrix.h"

namespace bitwright {

struct Rope {
  std::vector<float> inverse_frequencies;  // dim / 2 of them; channel i turns with channel i + dim / 2
  float factor = 1.0f;                     // multiplies cosine and sine
};

struct Expert {
  Matrix gate, up, down;
};

struct Layer {
  Matrix q, k, v, o, gate, up, down;
  Matrix router;                // (experts, hidden), of a mixture, where `gate`, `up` and `down` are empty
  std::vector<Expert> experts;  // empty where the MLP is one
  // Norm weights carry their offset already. Empty where the model has none.
  std::vector<float> attention_norm, mlp_norm, post_attention_norm, post_mlp_norm, q_norm, k_norm;
  std::vector<float> q_bias, k_bias, v_bias, o_bias;
  int rope = 0;
  int window = 0;  // positions a token sees, itself included; 0 for all
};

// Experts that a token goes through, at most: the chunk's rows hold their products.
constexpr int kMostExpertsPerToken = 128;

// A matrix with a row for each word: blocks of rows, one below the other, each stored in its own way; empty ones at the end.
constexpr int kMostBlocks = 8;
using RowBlocks = std::array<Matrix, kMostBlocks>;

struct Model {
  int hidden = 0, intermediate = 0, heads = 0, kv_heads = 0, head_dim = 0, vocabulary = 0;
  float epsilon = 1e-5f, embedding_scale = 1.0f, attention_scale = 1.0f, attention_softcap = 0.0f, logit_softcap = 0.0f;
  bool gelu = false;
  int experts = 0, experts_per_token = 0;  // of each layer; 0 where the MLP is one
  bool normalized_routing = false;         // the chosen experts' shares sum to 1
  std::vector<Rope> ropes;
  std::vector<Layer> layers;
  RowBlocks embedding, head;  // `head` is empty where it is tied to the embedding
  std::vector<float> final_norm;

  const RowBlocks& output() const { return head[0].empty() ? embedding : head; }
  bool is_output(const Matrix& matrix) const { return &matrix >= output().data() && &matrix < output().data() + kMostBlocks; }
  // Bytes of weights that one decoded token reads; of experts the mean of as many as a token goes through.
  size_t bytes_per_token() const;
  // Throws std::invalid_argument that names what is missing or has the wrong shape.
  void check() const;

 private:
  void check_mlp(const Layer& layer, const std::string& at) const;
};

}  // namespace bitwright
