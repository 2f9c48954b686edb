// IEEE half precision in plain C++.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace {

inline float half_to_float(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3FFu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t top = exponent == 31 ? 255u : exponent + 112;
  return std::bit_cast<float>(sign | (top << 23) | (mantissa << 13));
}

// Rounds to nearest, ties to even; beyond 65504 becomes infinity.
inline uint16_t float_to_half(float x) {
  const uint32_t raw = std::bit_cast<uint32_t>(x);
  const auto sign = static_cast<uint16_t>((raw >> 16) & 0x8000u);
  const float magnitude = std::fabs(x);
  if (magnitude >= 65520.0f) return sign | (magnitude == magnitude ? 0x7C00u : 0x7E00u);
  if (magnitude < 0x1p-14f)  // subnormal: adding this constant leaves the rounded multiple of 2^-24 in the low bits
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(magnitude + 0.5f) - std::bit_cast<uint32_t>(0.5f));
  const uint32_t bits = raw & 0x7FFFFFFFu;
  return sign | static_cast<uint16_t>((bits + 0xFFFu + ((bits >> 13) & 1u) - (112u << 23)) >> 13);
}

}  // namespace
