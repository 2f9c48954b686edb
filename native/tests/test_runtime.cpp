// Thread team, packing, sampler, and a whole small model: prompt against single steps, threads against one thread.
#include <atomic>
#include <numeric>
#include <stdexcept>

#include "bitwright/ceilings.h"
#include "bitwright/compare.h"
#include "bitwright/quantization.h"
#include "bitwright/sampler.h"
#include "bitwright/session.h"
#include "bitwright/thread_team.h"
#include "check.h"

using namespace bitwright;

namespace {

void check_team() {
  for (const int threads : {1, 2, 5}) {
    ThreadTeam team(threads);
    std::vector<int> passes(threads);
    std::atomic<int> behind{0};
    for (int round = 0; round < 200; round++)
      team.run([&](int thread) {
        for (int step = 0; step < 5; step++) {
          passes[thread]++;
          team.barrier();
          for (const int other : passes) behind += other != round * 5 + step + 1;
          team.barrier();
        }
      });
    CHECK(behind == 0);
    bool thrown = false;
    try {
      team.run([&](int thread) {
        if (thread == threads - 1) throw std::runtime_error("thrown on purpose");
      });
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    CHECK(thrown);
  }
}

void check_packing() {
  for (int bits = 2; bits <= 8; bits++)
    for (const size_t columns : {1, 7, 8, 33, 576}) {
      const auto codes = random_bytes(3 * columns, bits, 1 << bits);
      std::vector<uint8_t> packed(3 * ((columns * bits + 7) / 8)), back(codes.size());
      pack_codes(codes.data(), 3, columns, bits, packed.data());
      unpack_codes(packed.data(), 3, columns, bits, back.data());
      CHECK(codes == back);
    }
}

Matrix random_matrix(int rows, int columns, unsigned seed, int bits) {
  if (bits == 0) {
    const auto values = normal(static_cast<size_t>(rows) * columns, seed, 0.2f);
    return Matrix(DenseSource{values.data(), DenseType::fp32, rows, columns});
  }
  const auto codes = random_bytes(static_cast<size_t>(rows) * columns, seed, 1 << bits);
  std::vector<uint8_t> packed(static_cast<size_t>(rows) * ((columns * bits + 7) / 8));
  pack_codes(codes.data(), rows, columns, bits, packed.data());
  const std::vector<float> scales(rows, 0.3f / static_cast<float>(1 << (bits - 1)));
  return Matrix(PackedSource{packed.data(), scales.data(), nullptr, ScaleType::fp32, ZeroType::middle, bits, rows, columns,
                             columns, false});
}

std::shared_ptr<Model> small_model(int bits, int window) {
  auto model = std::make_shared<Model>();
  model->hidden = 48, model->intermediate = 80, model->heads = 6, model->kv_heads = 2, model->head_dim = 8;
  model->vocabulary = 101, model->attention_scale = 0.35f, model->attention_softcap = 20.0f, model->logit_softcap = 30.0f;
  model->ropes.push_back({{1.0f, 0.3f, 0.1f, 0.03f}, 1.0f});
  const std::vector<float> ones(48, 1.0f);
  for (unsigned i = 0; i < 2; i++) {
    Layer layer;
    layer.q = random_matrix(48, 48, 10 * i + 1, bits), layer.k = random_matrix(16, 48, 10 * i + 2, bits);
    layer.v = random_matrix(16, 48, 10 * i + 3, bits), layer.o = random_matrix(48, 48, 10 * i + 4, bits);
    layer.gate = random_matrix(80, 48, 10 * i + 5, bits), layer.up = random_matrix(80, 48, 10 * i + 6, bits);
    layer.down = random_matrix(48, 80, 10 * i + 7, bits);
    layer.attention_norm = layer.mlp_norm = layer.post_mlp_norm = ones;
    layer.q_bias = normal(48, 77), layer.window = i == 0 ? window : 0;
    model->layers.push_back(std::move(layer));
  }
  model->embedding = random_matrix(101, 48, 99, bits);
  model->final_norm = ones;
  model->check();
  return model;
}

std::vector<int32_t> some_tokens(int n) {
  std::vector<int32_t> tokens(n);
  for (int i = 0; i < n; i++) tokens[i] = i * 37 % 101;
  return tokens;
}

// Logits after each token, read as one prompt in pieces of the given length.
std::vector<float> read(const std::shared_ptr<Model>& model, const SessionOptions& options, int n, int piece) {
  Session session(model, options);
  const auto tokens = some_tokens(n);
  std::vector<float> hidden(static_cast<size_t>(n) * 48), logits(static_cast<size_t>(n) * 101);
  for (int i = 0; i < n; i += piece) session.forward(tokens.data() + i, std::min(piece, n - i), hidden.data() + i * 48, nullptr);
  session.project(hidden.data(), n, logits.data());
  return logits;
}

void check_steps(std::initializer_list<int> widths) {
  for (const int bits : widths)
    for (const int window : {0, 5})
      for (const auto activations : {Activations::int8, Activations::int16, Activations::fp32}) {
        const auto model = small_model(bits, window);
        const SessionOptions one{330, 1, activations, DenseType::fp32};
        const auto whole = read(model, one, 300, 300);
        // Sums in another order move an activation across a rounding boundary now and then: the coarser the rounding,
        // the further the logits move.
        const float bound = activations == Activations::int8 ? 0.2f : activations == Activations::int16 ? 2e-3f : 1e-4f;
        CHECK(distance(whole, read(model, one, 300, 1)) < bound);
        CHECK(distance(whole, read(model, one, 300, 7)) < bound);
        CHECK(distance(whole, read(model, {330, 3, activations, DenseType::fp32}, 300, 300)) < 1e-5f);
        CHECK(distance(whole, read(model, {330, 1, activations, DenseType::fp16}, 300, 300)) < bound + 0.05f);
        CHECK(distance(whole, read(model, {330, 1, activations, DenseType::int8}, 300, 300)) < bound + 0.3f);
      }
}

void check_limits() {
  Session session(small_model(8, 0), {8, 2, Activations::int8, DenseType::fp16});
  const auto tokens = some_tokens(9);
  const int32_t outside = 101;
  const auto throws = [&](const int32_t* ids, int n) {
    try {
      session.forward(ids, n, nullptr, nullptr);
    } catch (const std::logic_error&) {
      return true;
    }
    return false;
  };
  CHECK(throws(tokens.data(), 9));
  CHECK(throws(&outside, 1));
  CHECK(!throws(tokens.data(), 8));
  CHECK(throws(tokens.data(), 1));
  session.rewind(4);
  CHECK(session.position() == 4 && !throws(tokens.data(), 4));
}

void check_compare() {
  const auto model = small_model(0, 0), other = small_model(4, 0);
  const SessionOptions options{64, 2, Activations::fp32, DenseType::fp32};
  Session a(model, options), b(other, options);
  const auto tokens = some_tokens(60);
  std::vector<float> ha(60 * 48), hb(ha), la(60 * 101), lb(la);
  a.forward(tokens.data(), 60, ha.data(), nullptr), b.forward(tokens.data(), 60, hb.data(), nullptr);
  a.project(ha.data(), 60, la.data()), b.project(hb.data(), 60, lb.data());
  std::vector<Comparison> found(60);
  compare(&a, ha.data(), b, hb.data(), 60, tokens.data(), found.data());
  for (int row = 0; row < 60; row++) {
    double p_total = 0, q_total = 0, kl = 0;
    const float *p = la.data() + row * 101, *q = lb.data() + row * 101;
    for (int i = 0; i < 101; i++) p_total += std::exp(p[i]), q_total += std::exp(q[i]);
    for (int i = 0; i < 101; i++) kl += std::exp(p[i]) / p_total * (p[i] - std::log(p_total) - q[i] + std::log(q_total));
    CHECK(std::fabs(found[row].kl - kl) < 1e-5);
    CHECK(std::fabs(found[row].nll - (std::log(q_total) - q[tokens[row]])) < 1e-5);
    CHECK(std::fabs(found[row].nll_reference - (std::log(p_total) - p[tokens[row]])) < 1e-5);
  }
}

// Every ceiling has an instruction behind it, and that instruction runs here.
void check_ceilings() {
  CHECK(read_bandwidth(size_t{4} << 20, 2, 0.001) > 0);
  for (const MatrixType type : {MatrixType::int8, MatrixType::bf16})
    CHECK((matrix_peak(type, 2, 0.001) > 0) == (matrix_instruction(type) != nullptr));
}

void check_sampler() {
  const std::vector<float> logits = {1.0f, 3.0f, 2.0f, -1.0f};
  const auto shares = [&](SamplerOptions options, std::vector<int32_t> seen) {
    Sampler sampler(options);
    std::vector<double> share(4);
    for (int i = 0; i < 20000; i++) {
      share[sampler.pick(logits.data(), 4, seen)] += 1.0 / 20000;
    }
    return share;
  };
  CHECK(shares({}, {})[1] > 0.9999);
  const auto plain = shares({.temperature = 1.0f, .seed = 3}, {});
  const double total = std::exp(1.0) + std::exp(3.0) + std::exp(2.0) + std::exp(-1.0);
  for (int i = 0; i < 4; i++) CHECK(std::fabs(plain[i] - std::exp(logits[i]) / total) < 0.015);
  CHECK(shares({.temperature = 1.0f, .top_k = 2}, {})[0] == 0.0);
  CHECK(shares({.temperature = 1.0f, .top_p = 0.5f}, {})[1] > 0.9999);
  CHECK(shares({.temperature = 1.0f, .min_p = 0.3f}, {})[0] == 0.0);
  CHECK(shares({.repetition_penalty = 2.0f}, {1})[2] > 0.9999);
}

}  // namespace

std::vector<Case> runtime_cases() {
  return {{"thread team", check_team},
          {"packing", check_packing},
          {"prompt and steps", [] { check_steps({4}); }},
          {"prompt and steps, other widths", [] { check_steps({0, 2, 3, 6, 8}); }},
          {"context and tokens", check_limits},
          {"compare", check_compare},
          {"sampler", check_sampler},
          {"ceilings", check_ceilings}};
}
