// What lies between the products: norms, activation functions and the pieces of a softmax.
#pragma once

#include <cstring>

#include "bitwright/kernels.h"
#include "dense.h"

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

// exp(x - shift) where a relative error of 1e-7 a unit of x will do.
template <class Isa>
inline typename Isa::F exp_less(typename Isa::F x, float shift) {
  if constexpr (requires { Isa::exp2(x); }) {
    constexpr float kLog2E = 1.44269504f, kLeast = -126.0f, kMost = 127.0f;
    const auto t = Isa::fma(x, Isa::set1(kLog2E), Isa::set1(-shift * kLog2E));
    return Isa::exp2(Isa::min(Isa::max(t, Isa::set1(kLeast)), Isa::set1(kMost)));
  } else {
    return exp_of<Isa>(Isa::sub(x, Isa::set1(shift)));
  }
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
    const auto divisor = Isa::add(one, exp_less<Isa>(Isa::sub(Isa::set1(0.0f), g), 0.0f));
    if constexpr (requires { Isa::quotient(g, one); })
      return Isa::quotient(g, divisor);
    else
      return Isa::div(g, divisor);
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
    auto y = exp_less<Isa>(v, shift);
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

// Turns pairs (x[i], x[i + half]) by angles given as cosines, then sines.
template <class Isa>
void rotate_pairs(float* x, const float* angles, int half) {
  float *low = x, *high = x + half;
  const float *cosines = angles, *sines = angles + half;
  for_each_vector<Isa>(low, half, 0.0f, [&](int i, auto a, int count) {
    const bool full = count == kPanelRows;
    const auto read = [&](const float* p) { return full ? Isa::load(p + i) : load_tail<Isa>(p + i, count, 0.0f); };
    const auto b = read(high), c = read(cosines), s = read(sines);
    write_lanes<Isa>(low + i, Isa::sub(Isa::mul(a, c), Isa::mul(b, s)), count, false);
    write_lanes<Isa>(high + i, Isa::add(Isa::mul(b, c), Isa::mul(a, s)), count, false);
  });
}

template <class Isa>
void scale(float* x, int n, float factor) {
  for_each_vector<Isa>(x, n, 0.0f,
                       [&](int i, auto v, int count) { write_lanes<Isa>(x + i, Isa::mul(v, Isa::set1(factor)), count, false); });
}

template <class Isa>
void add_scaled(const float* x, int n, float factor, float* out) {
  for_each_vector<Isa>(x, n, 0.0f,
                       [&](int i, auto v, int count) { write_lanes<Isa>(out + i, Isa::mul(v, Isa::set1(factor)), count, true); });
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

}  // namespace
