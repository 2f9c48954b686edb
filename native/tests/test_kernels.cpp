// Every kernel of every instruction set this machine has, against the scalar twin, at every tail length; and the scalar
// twin's products against plain loops.
#include <cstring>
#include <numeric>

#include "bitwright/kernels.h"
#include "bitwright/matrix.h"
#include "bitwright/quantization.h"
#include "check.h"
#include "emulated_vnni.h"
#include "simd_scalar.h"
#include "tiled_matmul.h"

using namespace bitwright;

namespace {

constexpr float kFloatBound = 3e-5f;  // sums of some hundred products, added in another order
const int kTails[] = {1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 100, 172};

const Kernels& scalar() { return *kernels_named("scalar"); }

struct Rows {
  std::vector<int32_t> codes, negated_sums, negated_totals;
  std::vector<float> scales;
  QuantizedRows view;
};

// `rows` rows of x, (rows, columns), as int8 tiles: of the width that `k` wants, or one after the other where they are few.
Rows quantize(const Kernels& k, const std::vector<float>& x, int rows, int columns, bool whole, bool apart = true) {
  const bool few = rows == 1 || (apart && rows <= kFewRows), packed = !few && k.packed;
  const int tile = few ? 1 : packed ? kPackedRows : k.tile;
  const int blocks = (columns + kBlock - 1) / kBlock;
  const size_t lines = rows + 4 * kPackedRows;
  Rows r{std::vector<int32_t>(lines * (blocks + 1) * 8),
         std::vector<int32_t>(lines * blocks),
         std::vector<int32_t>(lines),
         std::vector<float>(lines * blocks),
         {}};
  r.view = {rows, blocks, tile, whole, packed, r.codes.data(), r.scales.data(), r.negated_sums.data(), r.negated_totals.data()};
  for (int t = 0; t < rows; t++) k.quantize_row(x.data() + t * columns, columns, whole, r.view.target(t));
  return r;
}

struct Weights {
  std::vector<uint8_t> codes;
  std::vector<float> zero_points;  // empty: in the middle
  std::vector<float> scales;
  Matrix matrix;
  int rows, columns, bits, group;
  std::vector<uint8_t> tables;  // 16 levels for all rows, or 16 for each; empty: codes are levels
  float at(int r, int c) const {
    const int g = r * (columns / group) + c / group;
    const uint8_t code = codes[r * columns + c], level = tables.empty() ? code : tables[(tables.size() > 16 ? 16 * r : 0) + code];
    const float middle = static_cast<float>(tables.empty() ? 1 << (bits - 1) : 128);
    return scales[g] * (static_cast<float>(level) - (zero_points.empty() ? middle : zero_points[g]));
  }
};

std::vector<uint8_t> pack(const Weights& w) {
  std::vector<uint8_t> packed(static_cast<size_t>(w.rows) * ((w.columns * w.bits + 7) / 8));
  pack_codes(w.codes.data(), w.rows, w.columns, w.bits, packed.data());
  return packed;
}

// Rows of random codes whose scales are multiples of one for each row.
Weights make_multiples(int rows, int columns, int bits, int group) {
  Weights w{random_bytes(rows * columns, 1, 1 << bits), {}, {}, {}, rows, columns, bits, group, {}};
  const auto row_scales = normal(rows, 2, 0.1f);
  std::vector<int8_t> multiples;
  for (const uint8_t m : random_bytes(rows * (columns / group), 3, 31)) {
    w.scales.push_back(row_scales[multiples.size() / (columns / group)] * static_cast<float>(m - 15));
    multiples.push_back(static_cast<int8_t>(m - 15));
  }
  const auto packed = pack(w);
  w.matrix = Matrix(PackedSource{.codes = packed.data(),
                                 .scales = row_scales.data(),
                                 .zero_points = nullptr,
                                 .scale_type = ScaleType::multiple,
                                 .zero_type = ZeroType::middle,
                                 .bits = bits,
                                 .rows = rows,
                                 .columns = columns,
                                 .group = group,
                                 .multiples = multiples.data()});
  return w;
}

// Rows of random codes into a table of random levels, or one for each row.
Weights make_table(int rows, int columns, int bits, int group, TableType type) {
  Weights w{random_bytes(rows * columns, 1, 1 << bits),
            {},
            normal(rows * (columns / group), 2, 0.1f),
            {},
            rows,
            columns,
            bits,
            group,
            random_bytes(type == TableType::row ? 16 * rows : 16, 9, 255)};
  const auto packed = pack(w);
  w.matrix = Matrix(PackedSource{.codes = packed.data(),
                                 .scales = w.scales.data(),
                                 .zero_points = nullptr,
                                 .scale_type = ScaleType::fp32,
                                 .zero_type = ZeroType::middle,
                                 .bits = bits,
                                 .rows = rows,
                                 .columns = columns,
                                 .group = group,
                                 .table_type = type,
                                 .table = w.tables.data()});
  return w;
}

// Rows of random codes and scales, with zero points of the given kind.
Weights make_weights(int rows, int columns, int bits, int group, ZeroType zero_type) {
  Weights w{random_bytes(rows * columns, 1, 1 << bits),
            {},
            normal(rows * (columns / group), 2, 0.1f),
            {},
            rows,
            columns,
            bits,
            group,
            {}};
  const std::vector<uint8_t> whole = random_bytes(w.scales.size(), 3, 1 << bits);
  if (zero_type == ZeroType::uint8) w.zero_points.assign(whole.begin(), whole.end());
  if (zero_type == ZeroType::fp32) w.zero_points = normal(w.scales.size(), 4, 3.0f);
  const void* zero_points = zero_type == ZeroType::uint8 ? static_cast<const void*>(whole.data()) : w.zero_points.data();
  const auto packed = pack(w);
  w.matrix = Matrix(
      PackedSource{packed.data(), w.scales.data(), zero_points, ScaleType::fp32, zero_type, bits, rows, columns, group, false});
  return w;
}

std::vector<float> multiply(const Kernels& k, const Weights& w, const std::vector<float>& x, int tokens, bool whole,
                            bool apart = true) {
  const QuantizedPanels panels = w.matrix.quantized_panels();
  const Rows rows = quantize(k, x, tokens, w.columns, whole, apart);
  std::vector<float> out(static_cast<size_t>(tokens) * w.rows);
  std::vector<uint8_t> scratch(matmul_scratch_bytes(panels.blocks));
  const Output output{out.data(), w.rows, false};
  if (tokens == 1)
    k.quantized_vector(panels, rows.view, {0, w.matrix.panels()}, output);
  else
    k.quantized_matmul(panels, rows.view, {0, w.matrix.panels()}, output, scratch.data());
  return out;
}

std::vector<double> dequantized(const Weights& w) {
  std::vector<double> values;
  for (int r = 0; r < w.rows; r++)
    for (int c = 0; c < w.columns; c++) values.push_back(w.at(r, c));
  return values;
}

// The definition, in double, on the activations as they were rounded; `values` are all of w's.
std::vector<float> multiply_plainly(const Weights& w, const std::vector<double>& values, const std::vector<float>& x, int tokens,
                                    bool whole) {
  const Rows rows = quantize(scalar(), x, tokens, w.columns, whole);
  const int tile = rows.view.tile;
  std::vector<float> out;
  std::vector<double> rounded(w.columns);
  for (int t = 0; t < tokens; t++) {
    const size_t first = static_cast<size_t>(t / tile) * tile, base = first * rows.view.blocks;
    for (int c = 0; c < w.columns; c++) {
      int8_t four[4];
      std::memcpy(four, &rows.codes[base * 8 + c / 4 * tile + t % tile], 4);
      rounded[c] = static_cast<double>(rows.scales[whole ? first + t % tile : base + c / kBlock * tile + t % tile]) * four[c % 4];
    }
    for (const double* row = values.data(); row != values.data() + values.size(); row += w.columns)
      out.push_back(static_cast<float>(std::inner_product(row, row + w.columns, rounded.data(), 0.0)));
  }
  return out;
}

void check_product(const Kernels& k, const Weights& w) {
  const std::vector<double> values = dequantized(w);
  for (const int tokens : {1, 2, 3, 5, 8, 13, 27, 81})
    for (const bool whole : {false, true}) {
      const auto x = normal(tokens * w.columns, 7);
      const auto products = multiply(k, w, x, tokens, whole);
      CHECK(distance(multiply_plainly(w, values, x, tokens, whole), products) < kFloatBound);
      CHECK(tokens > kFewRows || products == multiply(k, w, x, tokens, whole, false));
      // A row's products do not depend on how many rows are read at once.
      const std::vector<float> last(x.end() - w.columns, x.end());
      CHECK(multiply(k, w, last, 1, whole) == std::vector<float>(products.end() - w.rows, products.end()));
    }
}

const std::pair<int, int> kShapes[] = {{128, 64}, {192, 192}, {172, 172}, {96, 32}, {4, 4}};  // columns, group

void check_products(const Kernels& k) {
  for (const auto& [columns, group] : kShapes) {
    for (const int bits : {2, 3, 4, 5, 8})
      for (const ZeroType zero_type : {ZeroType::middle, ZeroType::uint8, ZeroType::fp32})
        check_product(k, make_weights(35, columns, bits, group, zero_type));
    for (const int bits : {2, 3, 4}) {
      check_product(k, make_multiples(53, columns, bits, group));
      check_product(k, make_table(35, columns, bits, group, TableType::tensor));
      check_product(k, make_table(35, columns, bits, group, TableType::row));
    }
  }
}

// The scalar twin with a matrix unit written out in loops.
const Kernels& emulated_matrix_unit() {
  static const Kernels kernels = [] {
    Kernels k = scalar();
    k.few_of_bytes = 2;
    k.packed = true;
    k.quantized_matmul = tiled_matmul<Scalar, EmulatedTiles>;
    return k;
  }();
  return kernels;
}

void check_dequantize(const Kernels& k) {
  for (const int bits : {2, 3, 4, 6, 8}) {
    const Weights w = make_weights(16, 96, bits, 32, ZeroType::uint8);
    std::vector<float> out(96 * kPanelRows);
    k.dequantize_panel(w.matrix.quantized_panels(), 0, out.data());
    bool same = true;
    for (int r = 0; r < 16; r++)
      for (int c = 0; c < 96; c++) same &= out[c * kPanelRows + r] == w.at(r, c);
    CHECK(same);
  }
  for (const Weights& w :
       {make_multiples(16, 96, 4, 32), make_table(16, 96, 3, 96, TableType::tensor), make_table(16, 96, 2, 32, TableType::row),
        make_table(16, 96, 3, 96, TableType::row), make_table(16, 96, 4, 96, TableType::row)}) {
    std::vector<float> out(96 * kPanelRows);
    k.dequantize_panel(w.matrix.quantized_panels(), 0, out.data());
    bool same = true;
    for (int r = 0; r < 16; r++)
      for (int c = 0; c < 96; c++) same &= out[c * kPanelRows + r] == w.at(r, c);
    CHECK(same);
  }
}

void check_dense(const Kernels& k) {
  const auto x = normal(30 * 64, 11);
  for (const DenseType type : {DenseType::fp32, DenseType::fp16, DenseType::bf16})
    for (const int columns : {1, 5, 31, 64})
      for (const int tokens : {1, 2, 4, 7, 12, 13, 29}) {
        const auto values = normal(35 * columns, 5);
        std::vector<uint16_t> half(values.size());
        for (size_t i = 0; i < values.size(); i++) {
          uint32_t raw;
          std::memcpy(&raw, &values[i], 4);
          half[i] = static_cast<uint16_t>(raw >> 16);
        }
        if (type == DenseType::fp16) scalar().to_fp16(values.data(), static_cast<int>(values.size()), half.data());
        const void* data = type == DenseType::fp32 ? static_cast<const void*>(values.data()) : half.data();
        const Matrix matrix(DenseSource{data, type, 35, columns});
        const auto product = [&](const Kernels& kernels) {
          const int tile = tokens == 1 ? 1 : kernels.tile;
          std::vector<float> tiles(static_cast<size_t>((tokens + tile - 1) / tile) * tile * columns), out(tokens * 35);
          for (int t = 0; t < tokens; t++)
            for (int c = 0; c < columns; c++) tiles[(t / tile * columns + c) * tile + t % tile] = x[t * columns + c];
          kernels.dense_matmul(matrix.dense_panels(), tiles.data(), tokens, {0, 3}, Output{out.data(), 35, false});
          return out;
        };
        CHECK(distance(product(scalar()), product(k)) < kFloatBound);
        if (type != DenseType::fp32) continue;
        std::vector<float> plain;
        for (int t = 0; t < tokens; t++)
          for (int r = 0; r < 35; r++) {
            double sum = 0;
            for (int c = 0; c < columns; c++) sum += static_cast<double>(values[r * columns + c]) * x[t * columns + c];
            plain.push_back(static_cast<float>(sum));
          }
        CHECK(distance(plain, product(k)) < kFloatBound);
      }
}

void check_rows(const Kernels& k) {
  for (const int n : kTails)
    for (const bool whole : {false, true}) {
      const auto x = normal(n, n);
      const Rows ours = quantize(k, x, 1, n, whole), twin = quantize(scalar(), x, 1, n, whole);
      CHECK(ours.codes == twin.codes);
      CHECK(ours.scales == twin.scales);
      CHECK(ours.negated_sums == twin.negated_sums && ours.negated_totals == twin.negated_totals);
      const size_t blocks = (n + kBlock - 1) / kBlock;
      std::vector<int32_t> a(2 * blocks * 8), b(a.size()), na(2 * blocks), nb(na), ta(2), tb(2);
      std::vector<float> sa(2 * blocks), sb(sa);
      const auto wide = [&](const Kernels& by, auto& codes, auto& scales, auto& sums, auto& totals) {
        const auto line = [&](int i) {
          return RowTarget{2, false, codes.data() + i, scales.data() + i, sums.data() + i, totals.data() + i};
        };
        by.quantize_row_wide(x.data(), n, whole, line(0), line(1));
      };
      wide(k, a, sa, na, ta);
      wide(scalar(), b, sb, nb, tb);
      CHECK(a == b && sa == sb && na == nb && ta == tb);
      for (int i = 0; i < n; i++) {  // the two codes give the value back within half a step of 15 bits
        int8_t high[4], low[4];
        std::memcpy(high, &a[i / 4 * 2], 4);
        std::memcpy(low, &a[i / 4 * 2 + 1], 4);
        const float unit = sa[whole ? 1 : i / kBlock * 2 + 1];
        CHECK(std::fabs(unit * (254.0f * high[i % 4] + low[i % 4]) - x[i]) <= 0.51f * unit);
      }
    }
}

// Against the definition: entry (i, j) of Sylvester's matrix is -1 to the number of ones that i and j share.
void check_hadamard(const Kernels& k) {
  for (const auto& [columns, block] :
       {std::pair{6, 2}, {12, 4}, {40, 8}, {48, 16}, {96, 32}, {192, 64}, {3, 1}, {384, 128}, {1024, 1024}}) {
    const auto x = normal(columns, 6);
    auto ours = x, twin = x;
    k.hadamard(ours.data(), columns, block, ours.data());
    scalar().hadamard(x.data(), columns, block, twin.data());
    CHECK(ours == twin);
    for (int i = 0; i < columns; i++) {
      double sum = 0;
      for (int j = 0; j < block; j++)
        sum += __builtin_parity(i % block & j) ? -x[i / block * block + j] : x[i / block * block + j];
      CHECK(std::fabs(sum / std::sqrt(block) - ours[i]) < 1e-5);
    }
  }
}

void check_vector_math(const Kernels& k) {
  for (const int n : kTails) {
    const auto x = normal(n, 3 * n, 4.0f), y = normal(n, 5 * n);
    const auto both = [&](auto run) {
      std::vector<float> a(x), b(x);
      run(k, a.data());
      run(scalar(), b.data());
      return distance(b, a);
    };
    CHECK(both([&](const Kernels& t, float* out) { t.rms_norm(x.data(), y.data(), n, 1e-5f, out); }) < 1e-6f);
    CHECK(both([&](const Kernels& t, float* out) { t.gated_silu(x.data(), y.data(), n, out); }) < 1e-6f);
    CHECK(both([&](const Kernels& t, float* out) { t.gated_gelu(x.data(), y.data(), n, out); }) < 1e-6f);
    CHECK(both([&](const Kernels& t, float* out) { t.softcap(out, n, 3.0f); }) < 1e-6f);
    if (n % 2 == 0) CHECK(both([&](const Kernels& t, float* out) { t.rotate_pairs(out, y.data(), n / 2); }) == 0.0f);
    CHECK(both([&](const Kernels& t, float* out) { t.scale(out, n, 0.3f); }) == 0.0f);
    CHECK(both([&](const Kernels& t, float* out) { t.add_scaled(y.data(), n, 0.3f, out); }) == 0.0f);
    std::vector<float> added(x), sums(x);
    k.add_scaled(y.data(), n, 0.3f, added.data());
    for (int i = 0; i < n; i++) sums[i] += 0.3f * y[i];
    CHECK(added == sums);
    CHECK(both([&](const Kernels& t, float* out) { out[0] = t.exp_shifted(out, n, 2.0f); }) < 1e-6f);
    CHECK(k.maximum(x.data(), n) == scalar().maximum(x.data(), n));
    double sum = 0, gap = 0;
    for (int i = 0; i < n; i++) {
      sum += std::exp(static_cast<double>(x[i]) - 2.0);
      gap += std::exp(static_cast<double>(x[i]) - 2.0) * (x[i] - y[i]);
    }
    CHECK(std::fabs(k.sum_exp(x.data(), n, 2.0f) - sum) < 1e-5 * (1 + sum));
    CHECK(std::fabs(k.expected_gap(x.data(), y.data(), n, 2.0f) - gap) < 1e-4 * (1 + std::fabs(gap)));
    std::vector<uint16_t> a(n), b(n);
    k.to_fp16(x.data(), n, a.data());
    scalar().to_fp16(x.data(), n, b.data());
    CHECK(a == b);
  }
}

// The scalar half conversion is itself checked on every half: to float and back, and at the midpoints' neighbours.
void check_half() {
  for (int h = 0; h < 0x7C00; h++) {
    const auto code = static_cast<uint16_t>(h);
    const Matrix one(DenseSource{&code, DenseType::fp16, 1, 1});
    float value;
    one.read_row(0, &value);
    uint16_t back;
    scalar().to_fp16(&value, 1, &back);
    CHECK(back == code);
  }
}

void check_grid(const Kernels& k) {
  for (const int n : kTails)
    for (const float zero_point : {0.0f, 3.0f}) {
      const auto x = normal(n, 17 * n);
      std::vector<uint8_t> a(n), b(n);
      k.encode_group(x.data(), n, 0.21f, zero_point, -8, 7, a.data());
      scalar().encode_group(x.data(), n, 0.21f, zero_point, -8, 7, b.data());
      CHECK(a == b);
      double error = 0;
      for (int i = 0; i < n; i++) error += std::pow(0.21 * (b[i] - 8 - zero_point) - x[i], 2);
      CHECK(std::fabs(k.squared_error(x.data(), n, 0.21f, zero_point, -8, 7) - error) < 1e-5 * (1 + error));
      const float levels[5] = {-1.7f, -0.6f, 0.1f, 0.45f, 1.9f};
      for (const bool weighted : {false, true}) {
        double nearest = 0;
        for (int i = 0; i < n; i++) {
          double least = 1e30;
          for (const float level : levels) least = std::min(least, std::fabs(0.9 * level - x[i]));
          nearest += least * least * (weighted ? std::fabs(x[i]) : 1);
        }
        std::vector<float> importance(x.size());
        for (size_t i = 0; i < x.size(); i++) importance[i] = std::fabs(x[i]);
        const float found = k.table_error(x.data(), weighted ? importance.data() : nullptr, n, 0.9f, levels, 5);
        CHECK(std::fabs(found - nearest) < 1e-5 * (1 + nearest));
      }
      float xq, qq, xq2, qq2;
      k.scale_sums(x.data(), n, 0.21f, zero_point, -8, 7, &xq, &qq);
      scalar().scale_sums(x.data(), n, 0.21f, zero_point, -8, 7, &xq2, &qq2);
      CHECK(qq == qq2 && std::fabs(xq - xq2) < 1e-4f * (1 + std::fabs(xq2)));
    }
}

}  // namespace

std::vector<Case> kernel_cases() {
  std::vector<Case> cases = {{"half precision", check_half}};
  const char* names[8];
  const int count = supported_kernels(names, 8);
  const std::pair<const char*, void (*)(const Kernels&)> checks[] = {
      {"products", check_products}, {"dequantize", check_dequantize},   {"dense", check_dense}, {"rows", check_rows},
      {"hadamard", check_hadamard}, {"vector math", check_vector_math}, {"grid", check_grid}};
  for (int i = 0; i < count; i++)
    for (const auto& [what, check] : checks)
      cases.push_back({std::string(names[i]) + " " + what, [check = check, name = names[i]] { check(*kernels_named(name)); }});
  cases.push_back({"emulated matrix unit products", [] { check_products(emulated_matrix_unit()); }});
#if defined(__x86_64__)
  if (kernels_named("avx2") != nullptr) cases.push_back({"emulated avxvnni products", [] { check_products(kEmulatedVnni); }});
#endif
  return cases;
}
