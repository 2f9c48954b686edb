// The smallest test frame that serves: named cases, and checks that say where they failed.
#pragma once

#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

struct Case {
  std::string name;
  std::function<void()> body;
};

inline int failures = 0;

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      std::printf("%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      failures++;                                                               \
    }                                                                           \
  } while (0)

inline std::vector<float> normal(size_t n, unsigned seed, float spread = 1.0f) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> draw(0.0f, spread);
  std::vector<float> values(n);
  for (float& value : values) value = draw(engine);
  return values;
}

inline std::vector<uint8_t> random_bytes(size_t n, unsigned seed, int below = 256) {
  std::mt19937 engine(seed);
  std::vector<uint8_t> values(n);
  for (uint8_t& value : values) value = static_cast<uint8_t>(engine() % below);
  return values;
}

// Largest |a - b| relative to 1 + |a|.
inline float distance(const std::vector<float>& a, const std::vector<float>& b) {
  float worst = a.size() == b.size() ? 0.0f : INFINITY;
  for (size_t i = 0; i < a.size() && i < b.size(); i++) {
    const float gap = std::fabs(a[i] - b[i]) / (1.0f + std::fabs(a[i]));
    worst = gap <= worst ? worst : gap;  // NaN counts as worst
  }
  return worst;
}

std::vector<Case> kernel_cases();
std::vector<Case> attention_cases();
std::vector<Case> matrix_attention_cases();
std::vector<Case> machine_cases();
std::vector<Case> runtime_cases();
