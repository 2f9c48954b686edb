// Picks the next token from logits.
#pragma once

#include <cstdint>
#include <vector>

namespace bitwright {

struct SamplerOptions {
  float temperature = 0.0f;         // 0: the likeliest token
  int top_k = 0;                    // keep the k likeliest; 0: all
  float top_p = 1.0f;               // keep the fewest whose probabilities add up to p (nucleus: Holtzman 2019, arXiv:1904.09751)
  float min_p = 0.0f;               // keep those with at least this share of the likeliest's probability (arXiv:2407.01082)
  float repetition_penalty = 1.0f;  // divides positive and multiplies negative logits of tokens seen (CTRL, arXiv:1909.05858)
  uint64_t seed = 0;
};

struct Candidate {
  float logit;
  int token;
};

// The likeliest first, equals by token. They come in ascending order of token.
void sort_by_logit(std::vector<Candidate>& candidates);

class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options) : options_(options), state_(options.seed) {}
  // `seen` are the tokens that the repetition penalty falls on.
  int pick(const float* logits, int n, const std::vector<int32_t>& seen);

 private:
  double uniform();  // [0, 1)

  SamplerOptions options_;
  uint64_t state_;
  std::vector<float> penalized_;
};

}  // namespace bitwright
