#include "bitwright/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>

#include "bitwright/kernels.h"

namespace bitwright {

namespace {

constexpr int kDigits = 3, kDigitBits = 11;
constexpr uint32_t kDigitMask = (1u << kDigitBits) - 1;

// Ascends as the logit descends; +0 and -0 are equal.
uint32_t descending_key(float logit) {
  const uint32_t bits = std::bit_cast<uint32_t>(logit + 0.0f);
  return bits >> 31 ? bits : ~bits & 0x7FFFFFFFu;
}

}  // namespace

// By radix, least digit first: each pass keeps the order of equals. At temperature 1 a whole vocabulary is sorted, token by
// token.
void sort_by_logit(std::vector<Candidate>& candidates) {
  std::vector<Candidate> other(candidates.size());
  for (int digit = 0; digit < kDigits; digit++) {
    const auto bucket = [&](const Candidate& candidate) {
      return descending_key(candidate.logit) >> digit * kDigitBits & kDigitMask;
    };
    std::vector<size_t> ends(kDigitMask + 2);
    for (const Candidate& candidate : candidates) ends[bucket(candidate) + 1]++;
    for (size_t i = 1; i < ends.size(); i++) ends[i] += ends[i - 1];
    for (const Candidate& candidate : candidates) other[ends[bucket(candidate)]++] = candidate;
    candidates.swap(other);
  }
}

double Sampler::uniform() {  // splitmix64: Steele, Lea and Flood 2014
  uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

int Sampler::pick(const float* logits, int n, const std::vector<int32_t>& seen) {
  if (options_.repetition_penalty != 1.0f) {
    std::vector<int32_t> tokens(seen);
    std::sort(tokens.begin(), tokens.end());
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    penalized_.assign(logits, logits + n);
    logits = penalized_.data();
    for (const int32_t token : tokens)
      penalized_[token] =
          logits[token] > 0 ? logits[token] / options_.repetition_penalty : logits[token] * options_.repetition_penalty;
  }
  const float peak = kernels().maximum(logits, n);
  if (!std::isfinite(peak)) throw std::domain_error("the logits are not finite");
  if (options_.temperature <= 0) return static_cast<int>(std::find(logits, logits + n, peak) - logits);

  // Tokens 30 temperatures below the likeliest have less than 1e-13 of its probability: they are never drawn.
  float floor = peak - 30.0f * options_.temperature;
  if (options_.min_p > 0) floor = std::max(floor, peak + options_.temperature * std::log(options_.min_p));
  std::vector<Candidate> candidates;
  for (int token = 0; token < n; token++)
    if (logits[token] >= floor) candidates.push_back({logits[token], token});
  sort_by_logit(candidates);
  if (options_.top_k > 0 && candidates.size() > static_cast<size_t>(options_.top_k)) candidates.resize(options_.top_k);

  std::vector<double> cumulative;
  double total = 0;
  for (const Candidate& candidate : candidates)
    cumulative.push_back(total += std::exp((static_cast<double>(candidate.logit) - peak) / options_.temperature));
  if (options_.top_p < 1.0f) {
    const auto cut = std::lower_bound(cumulative.begin(), cumulative.end(), options_.top_p * total);
    cumulative.resize(std::min(cumulative.size(), static_cast<size_t>(cut - cumulative.begin()) + 1));
  }
  const auto drawn = std::upper_bound(cumulative.begin(), cumulative.end(), uniform() * cumulative.back());
  return candidates[std::min(static_cast<size_t>(drawn - cumulative.begin()), cumulative.size() - 1)].token;
}

}  // namespace bitwright
