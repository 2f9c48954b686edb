// The cache's codes: what is written comes back within half a step, the integer products are those of plain loops and the
// same on every instruction set, and the Hadamard transform is its own inverse.
#include <algorithm>
#include <cstring>

#include "bitwright/kernels.h"
#include "bitwright/kv_cache.h"
#include "check.h"

using namespace bitwright;

namespace {

constexpr int kDims[] = {8, 32, 80, 96, 128};

Model shape_of(int dim) {
  Model model;
  model.kv_heads = 2, model.head_dim = dim;
  model.layers.resize(2);
  return model;
}

// The cached number at (column, lane) of a panel, read by the definition in kernels/cached.h.
float cached_value(const uint8_t* panel, int column, int lane, int bits) {
  const uint8_t* block = panel + column / kBlock * code_bytes(bits);
  const int step = column % kBlock / 4, byte = lane * 4 + column % 4;
  if (bits == 8) return static_cast<float>(block[step * 64 + byte]) - 128.0f;
  const int both = block[step / 2 * 64 + byte];
  return static_cast<float>(step % 2 == 0 ? both & 15 : both >> 4) - 7.5f;
}

float peak_of(const std::vector<float>& x) {
  float peak = 0;
  for (const float value : x) peak = std::max(peak, std::fabs(value));
  return peak;
}

// What is read back is what was written as that type holds it, and writing it again changes nothing but int4's last bits.
void check_reads() {
  for (const auto type : {CacheType::fp32, CacheType::fp16, CacheType::int8, CacheType::int4})
    for (const int dim : kDims) {
      KvCache cache(shape_of(dim), 600, type), other(shape_of(dim), 600, CacheType::fp32);
      std::vector<float> key(dim), value(dim);
      for (int position = 0; position < 300; position++)
        for (const int head : {0, 1}) {
          key = normal(dim, 7 * position + head), value = normal(dim, 7 * position + head + 3, 3.0f);
          for (const int layer : {0, 1}) cache.write(layer, head, position, key.data(), value.data());
        }
      other.copy_from(cache, 300);
      const double most = type == CacheType::int4   ? 0.51 / 7.5
                          : type == CacheType::int8 ? 0.51 / 127
                          : type == CacheType::fp16 ? 1.0 / 2048
                                                    : 0;
      bool close = true;
      for (const int position : {0, 5, 16, 21, 255, 256, 299}) {
        std::vector<float> read_key(dim), read_value(dim);
        other.read(1, 1, position, read_key.data(), read_value.data());
        auto written = normal(dim, 7 * position + 1), also = normal(dim, 7 * position + 4, 3.0f);
        if (type == CacheType::int4)
          for (auto* x : {&written, &also, &read_key, &read_value}) turn_head(kernels(), x->data(), dim);
        for (int i = 0; i < dim; i++) {
          close &= std::fabs(read_key[i] - written[i]) <= most * peak_of(written) + 1e-5;
          close &= std::fabs(read_value[i] - also[i]) <= most * peak_of(also) + 1e-5;
        }
      }
      CHECK(close);
    }
}

void check_writes() {
  for (const auto& [type, bits] : {std::pair{CacheType::int8, 8}, {CacheType::int4, 4}})
    for (const int dim : kDims) {
      KvCache cache(shape_of(dim), 600, type);
      bool close = true;
      for (const int position : {0, 3, 4, 21, 255, 256, 599}) {
        auto key = normal(dim, position + 1), value = normal(dim, position + 2, 3.0f);
        cache.write(1, 1, position, key.data(), value.data());
        if (bits == 4) turn_head(kernels(), key.data(), dim), turn_head(kernels(), value.data(), dim);
        const int span = position / kAttentionSpan, offset = position % kAttentionSpan;
        const float key_scale = cache.key_scales(1, 1, span)[offset], value_scale = cache.value_scales(1, 1, span)[offset];
        const uint8_t* keys = cache.keys(1, 1, span) + cache.key_bytes(offset / 16 * 16);
        const float most = bits == 8 ? 127.0f : 7.5f;
        close &= std::fabs(key_scale * most - peak_of(key)) < 1e-5f && std::fabs(value_scale * most - peak_of(value)) < 1e-5f;
        for (int i = 0; i < dim; i++) {
          const uint8_t* values = cache.values(1, 1, span) + i / 16 * cache.value_panel_bytes();
          close &= std::fabs(cached_value(keys, i, offset % 16, bits) * key_scale - key[i]) <= 0.501f * key_scale;
          close &= std::fabs(cached_value(values, offset, i % 16, bits) * value_scale - value[i]) <= 0.501f * value_scale;
        }
      }
      CHECK(close);
    }
}

void check_hadamard() {
  for (const int n : {1, 2, 8, 64, 80, 96, 128, 1024}) {
    const auto x = normal(n, n);
    auto y = x;
    turn_head(kernels(), y.data(), n);
    double before = 0, after = 0;
    for (int i = 0; i < n; i++) before += x[i] * x[i], after += y[i] * y[i];
    CHECK(std::fabs(before - after) < 1e-4 * before);
    turn_head(kernels(), y.data(), n);
    CHECK(distance(x, y) < 1e-6f);
  }
  std::vector<float> first = {1, 0, 0, 0}, fourth = {0, 0, 0, 1};
  turn_head(kernels(), first.data(), 4), turn_head(kernels(), fourth.data(), 4);
  CHECK((first == std::vector<float>{0.5f, 0.5f, 0.5f, 0.5f} && fourth == std::vector<float>{0.5f, -0.5f, -0.5f, 0.5f}));
}

struct Rows {
  std::vector<int8_t> codes;
  std::vector<float> units, sums;
  CachedRows view;
};

Rows quantize(const Kernels& k, const std::vector<float>& x, const float* factors, int rows, int columns, int digits) {
  const int stride = (columns + kBlock - 1) / kBlock + 1;
  Rows r{std::vector<int8_t>(digits * rows * stride * kBlock),
         std::vector<float>(rows * stride),
         std::vector<float>(rows * stride),
         {}};
  r.view = {rows, digits, r.codes.data(), r.units.data(), r.sums.data()};
  for (int row = 0; row < rows; row++) k.cached_row(x.data() + row * columns, factors, columns, row, r.view);
  return r;
}

// The number at (row, column) that the codes stand for.
double value_at(const Rows& r, int row, int column) {
  const int block = column / kBlock * r.view.rows + row;
  const int8_t* digits = r.codes.data() + block * r.view.digits * kBlock + column % kBlock;
  return static_cast<double>(r.units[block]) * (r.view.digits == 1 ? digits[0] : 254.0 * digits[0] + digits[kBlock]);
}

void check_rows(const Kernels& k, int digits) {
  for (const int columns : {1, 8, 15, 16, 17, 31, 32, 33, 80, 256}) {
    const auto x = normal(3 * columns, columns), factors = normal(columns, 2);
    for (const float* by : {factors.data(), static_cast<const float*>(nullptr)}) {
      const Rows ours = quantize(k, x, by, 3, columns, digits),
                 twin = quantize(*kernels_named("scalar"), x, by, 3, columns, digits);
      CHECK(ours.codes == twin.codes && ours.units == twin.units && ours.sums == twin.sums);
      bool close = true;
      for (int row = 0; row < 3; row++)
        for (int c = 0; c < columns; c++) {
          const float unit = ours.units[c / kBlock * 3 + row];
          close &= std::fabs(value_at(ours, row, c) - x[row * columns + c] * (by ? by[c] : 1.0f)) <= 0.51 * unit;
        }
      CHECK(close);
    }
  }
}

void check_products(const Kernels& k, int digits) {
  constexpr int kPanels = 3;
  for (const int bits : {4, 8})
    for (const int columns : {8, 31, 32, 80, 96, 256})
      for (int rows = 1; rows <= k.tile / digits; rows++) {
        const int blocks = (columns + kBlock - 1) / kBlock;
        const size_t stride = static_cast<size_t>(blocks) * code_bytes(bits) + 64;
        const auto codes = random_bytes(kPanels * stride, columns + bits);
        const auto scales = normal(kPanels * kPanelRows, 3), x = normal(static_cast<size_t>(rows) * columns, 5);
        const Rows given = quantize(k, x, nullptr, rows, columns, digits);
        for (const float* lane_scales : {scales.data(), static_cast<const float*>(nullptr)}) {
          std::vector<float> plain, out(static_cast<size_t>(rows) * kPanels * kPanelRows);
          for (int row = 0; row < rows; row++)
            for (int lane = 0; lane < kPanels * kPanelRows; lane++) {
              double sum = 0;
              for (int c = 0; c < columns; c++)
                sum += value_at(given, row, c) * cached_value(codes.data() + lane / 16 * stride, c, lane % 16, bits);
              plain.push_back(static_cast<float>(sum * (lane_scales ? scales[lane] : 1.0f)));
            }
          k.cached_panels({codes.data(), lane_scales, stride, bits, blocks, kPanels, {codes.data(), codes.size()}}, given.view,
                          {out.data(), kPanels * kPanelRows, false});
          CHECK(distance(plain, out) < 2e-3f);  // sums of 2^28 in floats of 24 bits
        }
      }
}

}  // namespace

std::vector<Case> attention_cases() {
  std::vector<Case> cases = {
      {"cached codes", check_writes}, {"cached numbers", check_reads}, {"Hadamard transform", check_hadamard}};
  const char* names[8];
  const int count = supported_kernels(names, 8);
  for (int i = 0; i < count; i++)
    for (const int digits : {1, 2}) {
      const std::string name = names[i], of = " of " + std::to_string(digits);
      cases.push_back({name + " cached rows" + of, [name, digits] { check_rows(*kernels_named(name.c_str()), digits); }});
      cases.push_back({name + " cached panels" + of, [name, digits] { check_products(*kernels_named(name.c_str()), digits); }});
    }
  return cases;
}
