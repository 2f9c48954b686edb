// What lies between the products: norms, activation functions, softmax pieces and the int8 rows of activations.
#pragma once

#include <cstring>

#include "bitwright/kernels.h"
#include "codes.h"

namespace {

// Sums, maxima and maps over n floats, sixteen at a time; the tail is padded with `fill`.
template <class Isa>
inline typename Isa::F load_tail(const float* x, int count, float fill) {
  float lanes[kPanelRows];
  for (int i = 0; i < kPanelRows; i++) lanes[i] = i < count ? x[i] : fill;
  return Isa::load(lanes);
}

template <class Isa, class Visit>
inline void for_each_vector(const float* x, int n, float fill, Visit visit) {
  int i = 0;
  for (; i + kPanelRows <= n; i += kPanelRows) visit(i, Isa::load(x + i), kPanelRows);
  if (i < n) visit(i, load_tail<Isa>(x + i, n - i, fill), n - i);
}

// The first `count` lanes, zero in the others: padding must not add to a sum.
template <class Isa>
inline typename Isa::F keep_lanes(typename Isa::F value, int count) {
  float lanes[kPanelRows];
  Isa::store(lanes, value);
  return load_tail<Isa>(lanes, count, 0.0f);
}

// exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, the latter by its Taylor polynomial of degree 7
// (error below 2^-24 on that interval). Arguments below -87 give a number near 1e-38.
template <class Isa>
inline typename Isa::F exp_of(typename Isa::F x) {
  x = Isa::min(Isa::max(x, Isa::set1(-87.0f)), Isa::set1(88.0f));
  const auto n = Isa::round(Isa::mul(x, Isa::set1(1.44269504f)));
  auto r = Isa::fma(n, Isa::set1(-0.693359375f), x);  // ln 2 in two parts, the first exact in few bits
  r = Isa::fma(n, Isa::set1(2.12194440e-4f), r);
  auto y = Isa::set1(1.0f / 5040);
  for (float coefficient : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    y = Isa::fma(y, r, Isa::set1(coefficient));
  return Isa::mul(y, Isa::pow2(n));
}

// tanh(x) = 1 - 2 / (exp(2x) + 1)
template <class Isa>
inline typename Isa::F tanh_of(typename Isa::F x) {
  const auto one = Isa::set1(1.0f);
  return Isa::sub(one, Isa::div(Isa::set1(2.0f), Isa::add(exp_of<Isa>(Isa::add(x, x)), one)));
}

template <class Isa>
void rms_norm(const float* x, const float* weight, int n, float epsilon, float* out) {
  auto squares = Isa::set1(0.0f);
  for_each_vector<Isa>(x, n, 0.0f, [&](int, auto v, int) { squares = Isa::fma(v, v, squares); });
  const float root = __builtin_sqrtf(Isa::sum(squares) / static_cast<float>(n) + epsilon);
  const auto factor = Isa::set1(1.0f / root);
  for_each_vector<Isa>(x, n, 0.0f, [&](int i, auto v, int count) {
    const auto w = count == kPanelRows ? Isa::load(weight + i) : load_tail<Isa>(weight + i, count, 0.0f);
    write_lanes<Isa>(out + i, Isa::mul(Isa::mul(v, factor), w), count, false);
  });
}

template <class Isa, class Activate>
inline void gated(const float* gate, const float* up, int n, float* out, Activate activate) {
  for_each_vector<Isa>(gate, n, 0.0f, [&](int i, auto g, int count) {
    const auto u = count == kPanelRows ? Isa::load(up + i) : load_tail<Isa>(up + i, count, 0.0f);
    write_lanes<Isa>(out + i, Isa::mul(activate(g), u), count, false);
  });
}

// silu(x) = x / (1 + exp(-x))
template <class Isa>
void gated_silu(const float* gate, const float* up, int n, float* out) {
  gated<Isa>(gate, up, n, out, [](auto g) {
    const auto one = Isa::set1(1.0f);
    return Isa::div(g, Isa::add(one, exp_of<Isa>(Isa::sub(Isa::set1(0.0f), g))));
  });
}

// gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the approximation that Gemma was trained with
template <class Isa>
void gated_gelu(const float* gate, const float* up, int n, float* out) {
  gated<Isa>(gate, up, n, out, [](auto g) {
    const auto cube = Isa::mul(Isa::mul(g, g), g);
    const auto inner = Isa::mul(Isa::set1(0.7978845608f), Isa::fma(cube, Isa::set1(0.044715f), g));
    const auto half = Isa::mul(g, Isa::set1(0.5f));
    return Isa::fma(half, tanh_of<Isa>(inner), half);
  });
}

template <class Isa>
void softcap(float* x, int n, float cap) {
  for_each_vector<Isa>(x, n, 0.0f, [&](int i, auto v, int count) {
    write_lanes<Isa>(x + i, Isa::mul(Isa::set1(cap), tanh_of<Isa>(Isa::mul(v, Isa::set1(1.0f / cap)))), count, false);
  });
}

template <class Isa>
float exp_shifted(float* x, int n, float shift) {
  auto total = Isa::set1(0.0f);
  for_each_vector<Isa>(x, n, -1e30f, [&](int i, auto v, int count) {
    auto y = exp_of<Isa>(Isa::sub(v, Isa::set1(shift)));
    if (count < kPanelRows) y = keep_lanes<Isa>(y, count);
    total = Isa::add(total, y);
    write_lanes<Isa>(x + i, y, count, false);
  });
  return Isa::sum(total);
}

template <class Isa>
float maximum(const float* x, int n) {
  auto best = Isa::set1(x[0]);
  for_each_vector<Isa>(x, n, x[0], [&](int, auto v, int) { best = Isa::max(best, v); });
  return Isa::highest(best);
}

template <class Isa>
void scale(float* x, int n, float factor) {
  for_each_vector<Isa>(x, n, 0.0f,
                       [&](int i, auto v, int count) { write_lanes<Isa>(x + i, Isa::mul(v, Isa::set1(factor)), count, false); });
}

// Float sums of short spans, added in double: a vocabulary has up to 260k entries.
template <class Visit>
inline double sum_spans(int n, Visit visit) {
  constexpr int kSpan = 4096;
  double total = 0;
  for (int begin = 0; begin < n; begin += kSpan) total += visit(begin, n - begin < kSpan ? n - begin : kSpan);
  return total;
}

template <class Isa>
double sum_exp(const float* x, int n, float shift) {
  return sum_spans(n, [&](int begin, int count) {
    auto sum = Isa::set1(0.0f);
    for_each_vector<Isa>(x + begin, count, -1e30f, [&](int, auto v, int lanes) {
      auto y = exp_of<Isa>(Isa::sub(v, Isa::set1(shift)));
      sum = Isa::add(sum, lanes == kPanelRows ? y : keep_lanes<Isa>(y, lanes));
    });
    return Isa::sum(sum);
  });
}

template <class Isa>
double expected_gap(const float* p, const float* q, int n, float p_shift) {
  return sum_spans(n, [&](int begin, int count) {
    auto sum = Isa::set1(0.0f);
    for_each_vector<Isa>(p + begin, count, 0.0f, [&](int i, auto v, int lanes) {
      const auto other = lanes == kPanelRows ? Isa::load(q + begin + i) : load_tail<Isa>(q + begin + i, lanes, 0.0f);
      const auto gap = Isa::sub(v, other);  // zero in the padding
      sum = Isa::fma(exp_of<Isa>(Isa::sub(v, Isa::set1(p_shift))), gap, sum);
    });
    return Isa::sum(sum);
  });
}

template <class Isa>
void to_fp16(const float* x, int n, uint16_t* out) {
  for_each_vector<Isa>(x, n, 0.0f, [&](int i, auto v, int count) {
    uint16_t lanes[kPanelRows];
    Isa::store_fp16(lanes, v);
    std::memcpy(out + i, lanes, count * sizeof(uint16_t));
  });
}

// Largest magnitude of a block of 32, read through a zero-padded copy at the end of the row.
struct Block32 {
  float values[kBlock];
  Block32(const float* x, int count) {
    for (int i = 0; i < kBlock; i++) values[i] = i < count ? x[i] : 0.0f;
  }
};

template <class Isa>
inline float block_bound(const float* x) {
  return Isa::highest(Isa::max(Isa::abs(Isa::load(x)), Isa::abs(Isa::load(x + kPanelRows))));
}

inline void place_codes(const int8_t* codes, int tile, int32_t* out) {
  for (int j = 0; j < kSteps; j++) std::memcpy(out + j * tile, codes + 4 * j, 4);
}

template <class Isa>
void quantize_row(const float* x, int columns, int tile, int32_t* codes, float* scales, float* negated_sums) {
  for (int k = 0; k < columns; k += kBlock, codes += kSteps * tile, scales += tile, negated_sums += tile) {
    const Block32 padded(x + k, columns - k);
    const float bound = block_bound<Isa>(padded.values);
    const float inverse = bound > 0.0f ? 127.0f / bound : 0.0f;
    const auto low = Isa::round(Isa::mul(Isa::load(padded.values), Isa::set1(inverse)));
    const auto high = Isa::round(Isa::mul(Isa::load(padded.values + kPanelRows), Isa::set1(inverse)));
    int8_t bytes[kBlock];
    Isa::store_int8(bytes, low);
    Isa::store_int8(bytes + kPanelRows, high);
    place_codes(bytes, tile, codes);
    *scales = bound / 127.0f;
    *negated_sums = -Isa::sum(Isa::add(low, high));
  }
}

template <class Isa>
void quantize_row_wide(const float* x, int columns, int tile, int32_t* codes, float* scales, float* negated_sums) {
  constexpr float kBase = 254.0f, kMost = 127.0f * kBase + 126.0f;  // one more would round up to 128 * 254
  for (int k = 0; k < columns; k += kBlock, codes += kSteps * tile, scales += tile, negated_sums += tile) {
    const Block32 padded(x + k, columns - k);
    const float bound = block_bound<Isa>(padded.values);
    const float inverse = bound > 0.0f ? kMost / bound : 0.0f;
    int8_t first[kBlock], second[kBlock];
    auto first_sum = Isa::set1(0.0f), second_sum = Isa::set1(0.0f);
    for (int half = 0; half < kBlock; half += kPanelRows) {
      const auto code = Isa::round(Isa::mul(Isa::load(padded.values + half), Isa::set1(inverse)));
      const auto high = Isa::round(Isa::mul(code, Isa::set1(1.0f / kBase)));
      const auto low = Isa::sub(code, Isa::mul(high, Isa::set1(kBase)));
      Isa::store_int8(first + half, high);
      Isa::store_int8(second + half, low);
      first_sum = Isa::add(first_sum, high);
      second_sum = Isa::add(second_sum, low);
    }
    place_codes(first, tile, codes);
    place_codes(second, tile, codes + 1);
    const float unit = bound / kMost;
    scales[0] = unit * kBase;
    scales[1] = unit;
    negated_sums[0] = -Isa::sum(first_sum);
    negated_sums[1] = -Isa::sum(second_sum);
  }
}

}  // namespace
