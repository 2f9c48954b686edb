// Packing, sampler, and a whole small model: prompt against single steps, threads against one thread.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "bitwright/compare.h"
#include "bitwright/loading.h"
#include "bitwright/quantization.h"
#include "bitwright/sampler.h"
#include "bitwright/session.h"
#include "check.h"

using namespace bitwright;

namespace {

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
  return Matrix(PackedSource{.codes = packed.data(),
                             .scales = scales.data(),
                             .zero_points = nullptr,
                             .scale_type = ScaleType::fp32,
                             .zero_type = ZeroType::middle,
                             .bits = bits,
                             .rows = rows,
                             .columns = columns,
                             .group = columns,
                             .rotated = bits % 4 == 0});
}

// Matrices repacked behind the caller's back are those repacked at once.
void check_loading() {
  const auto values = normal(700 * 96, 3);
  const auto codes = random_bytes(700 * 48, 4);
  const std::vector<float> scales(700, 0.5f);
  const MatrixSource sources[] = {DenseSource{values.data(), DenseType::fp32, 700, 96},
                                  PackedSource{.codes = codes.data(),
                                               .scales = scales.data(),
                                               .zero_points = nullptr,
                                               .scale_type = ScaleType::fp32,
                                               .zero_type = ZeroType::middle,
                                               .bits = 4,
                                               .rows = 700,
                                               .columns = 96,
                                               .group = 96}};
  Matrix matrices[2];
  Loading loading;
  for (int i = 0; i < 2; i++) loading.add(matrices[i], sources[i]);
  loading.begin();
  loading.wait();
  loading.wait();
  for (int i = 0; i < 2; i++) {
    const Matrix whole(sources[i]);
    bool same = true;
    for (int row = 0; row < 700; row++) {
      std::vector<float> ours(96), twin(96);
      matrices[i].read_row(row, ours.data());
      whole.read_row(row, twin.data());
      same &= ours == twin;
    }
    CHECK(same && matrices[i].bytes() == whole.bytes());
  }
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
  model->embedding[0] = random_matrix(101, 48, 99, bits);
  model->final_norm = ones;
  model->check();
  return model;
}

std::vector<int32_t> some_tokens(int n) {
  std::vector<int32_t> tokens(n);
  for (int i = 0; i < n; i++) tokens[i] = i * 37 % 101;
  return tokens;
}

struct Options {
  int threads;
  Activations activations;
  CacheType cache;
};

// Logits after each token, read as one prompt in pieces of the given length; short ones at its beginning and around the end of
// a span of attention, with all that is between at once.
std::vector<float> read(const std::shared_ptr<Model>& model, const Options& options, int n, int piece) {
  Session session(model, {options.threads, options.activations});
  Sequence sequence(*model, n + 30, options.cache);
  const auto tokens = some_tokens(n);
  std::vector<float> hidden(static_cast<size_t>(n) * 48), logits(static_cast<size_t>(n) * 101);
  constexpr int kEarly = 30, kLate = kAttentionSpan - 10;
  for (int i = 0, next; i < n; i = next) {
    next = piece < kEarly && i >= kEarly && i < kLate ? kLate : std::min(i + piece, n);
    session.forward({{&sequence, tokens.data() + i, next - i}}, hidden.data() + i * 48, nullptr);
  }
  session.project(hidden.data(), n, logits.data());
  return logits;
}

// The same bits, however the tokens come in and whoever computes: exactly.
void check_steps(std::initializer_list<int> widths, std::initializer_list<CacheType> caches) {
  for (const int bits : widths)
    for (const int window : {0, 5})
      for (const auto activations : {Activations::int8, Activations::int16, Activations::fp32})
        for (const auto cache : caches) {
          const auto model = small_model(bits, window);
          constexpr int kTokens = kAttentionSpan + 14;
          const auto whole = read(model, {1, activations, cache}, kTokens, kTokens);
          CHECK(whole == read(model, {1, activations, cache}, kTokens, 1));
          CHECK(whole == read(model, {3, activations, cache}, kTokens, 7));
          CHECK(whole == read(model, {3, activations, cache}, kTokens, kTokens));  // threads share out panels
          CHECK(whole == read(model, {2, activations, cache}, kTokens, kTokens));  // and rows
        }
}

// `small_model` without a norm behind its MLP, and with each MLP as all or as the first of `experts`; the others are random.
std::shared_ptr<Model> mixture(int bits, int experts, int each, bool alike) {
  const auto model = small_model(bits, 0);
  model->experts = experts, model->experts_per_token = each, model->normalized_routing = true;
  for (Layer& layer : model->layers) {
    layer.post_mlp_norm.clear();
    const unsigned seed = &layer == &model->layers[0] ? 5 : 15;
    layer.gate = Matrix(), layer.up = Matrix(), layer.down = Matrix();
    layer.router = random_matrix(experts, 48, seed + 50, 0);
    for (int i = 0; i < experts; i++) {
      const unsigned other = alike ? seed : seed + 100 * i;
      layer.experts.push_back(
          {random_matrix(80, 48, other, bits), random_matrix(80, 48, other + 1, bits), random_matrix(48, 80, other + 2, bits)});
    }
  }
  model->check();
  return model;
}

// The same bits however tokens come in, and experts that are all alike give what the one MLP would.
void check_experts() {
  for (const int bits : {0, 4})
    for (const auto activations : {Activations::int8, Activations::int16, Activations::fp32}) {
      const auto model = mixture(bits, 7, 3, false);
      constexpr int kTokens = kAttentionSpan + 14;
      const auto whole = read(model, {1, activations, CacheType::fp32}, kTokens, kTokens);
      for (const int threads : {1, 3})
        for (const int piece : {1, 7, kTokens})
          CHECK(whole == read(model, {threads, activations, CacheType::fp32}, kTokens, piece));
      const auto one = small_model(bits, 0);
      for (Layer& layer : one->layers) layer.post_mlp_norm.clear();
      const auto expected = read(one, {1, activations, CacheType::fp32}, kTokens, kTokens);
      const auto alike = read(mixture(bits, 7, 7, true), {1, activations, CacheType::fp32}, kTokens, kTokens);
      CHECK(distance(expected, alike) < (activations == Activations::int8 ? 0.3f : 1e-2f));
      CHECK(distance(expected, whole) > 1.0f);
    }
  const auto model = mixture(0, 4, 2, false);
  const size_t all = model->bytes_per_token();
  model->experts_per_token = 4;
  CHECK(model->bytes_per_token() - all == 2 * 2 * 3 * 80 * 48 * sizeof(float));  // two experts more in two layers
  model->layers[1].experts.pop_back();
  bool refused = false;
  try {
    model->check();
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  CHECK(refused);
}

// What a cache's rounding may do to the logits of this model.
void check_cache_types() {
  const std::pair<CacheType, float> bounds[] = {{CacheType::fp16, 0.02f}, {CacheType::int8, 0.3f}, {CacheType::int4, 3.0f}};
  for (const int window : {0, 5}) {
    const auto model = small_model(8, window);
    const auto exact = read(model, {1, Activations::fp32, CacheType::fp32}, 300, 300);
    for (const auto& [cache, bound] : bounds) {
      const float gap = distance(exact, read(model, {1, Activations::fp32, cache}, 300, 300));
      CHECK(gap > 0.0f && gap < bound);
    }
  }
}

// Sequences of different lengths read together give what each gives alone; their order and number do not matter.
void check_batches() {
  for (const auto cache : {CacheType::fp32, CacheType::fp16, CacheType::int8, CacheType::int4}) {
    const auto model = small_model(4, 5);
    const auto tokens = some_tokens(300);
    Session session(model, {3, Activations::int8});
    const auto alone = read(model, {1, Activations::int8, cache}, 300, 300);
    const int starts[] = {1, 40, 200, 290}, lengths[] = {1, 9, 80, 1};  // together more rows than a chunk has, once 200 are read
    std::vector<std::unique_ptr<Sequence>> sequences;
    std::vector<Piece> begin, rest;
    for (int i = 0; i < 4; i++) {
      sequences.push_back(std::make_unique<Sequence>(*model, 300, cache));
      begin.push_back({sequences[i].get(), tokens.data(), starts[i]});
      rest.push_back({sequences[i].get(), tokens.data() + starts[i], lengths[i]});
    }
    session.forward(begin, nullptr, nullptr);
    std::vector<float> logits(4 * 101), hidden(91 * 48);
    session.forward(rest, hidden.data(), logits.data());
    for (int i = 0; i < 4; i++) {
      CHECK(sequences[i]->position() == starts[i] + lengths[i]);
      const float* expected = alone.data() + static_cast<size_t>(starts[i] + lengths[i] - 1) * 101;
      CHECK(std::equal(expected, expected + 101, logits.data() + i * 101));
    }
    std::vector<float> all(91 * 101);
    session.project(hidden.data(), 91, all.data());
    CHECK(std::equal(all.begin() + 1 * 101, all.begin() + 10 * 101, alone.begin() + 40 * 101));
  }
}

void check_limits() {
  const auto model = small_model(8, 0);
  Session session(model, {2, Activations::int8});
  Sequence sequence(*model, 8, CacheType::fp16), other(*model, 8, CacheType::fp16);
  const auto tokens = some_tokens(9);
  const int32_t outside = 101;
  const auto throws = [&](const std::vector<Piece>& pieces) {
    try {
      session.forward(pieces, nullptr, nullptr);
    } catch (const std::logic_error&) {
      return true;
    }
    return false;
  };
  CHECK(throws({{&sequence, tokens.data(), 9}}));
  CHECK(throws({{&sequence, &outside, 1}}));
  CHECK(throws({{&sequence, tokens.data(), 0}}));
  CHECK(throws({{&sequence, tokens.data(), 1}, {&sequence, tokens.data(), 1}}));
  CHECK(throws({{&other, tokens.data(), 1}, {&sequence, tokens.data(), 9}}) && other.position() == 0);
  CHECK(!throws({{&sequence, tokens.data(), 8}}));
  CHECK(throws({{&sequence, tokens.data(), 1}}));
  sequence.rewind(4);
  CHECK(sequence.position() == 4 && !throws({{&sequence, tokens.data(), 4}}));
}

// A restored sequence goes on as the one that was kept; what lies behind its position is not in the state.
void check_state() {
  const auto model = small_model(4, 0);
  const auto tokens = some_tokens(300);
  Session session(model, {2, Activations::int8});
  for (const auto cache : {CacheType::fp32, CacheType::fp16, CacheType::int8, CacheType::int4}) {
    Sequence kept(*model, 400, cache), longer(*model, 400, cache), restored(*model, 500, cache);
    session.forward({{&kept, tokens.data(), 270}, {&longer, tokens.data(), 300}}, nullptr, nullptr);
    longer.rewind(270);
    const std::vector<uint8_t> state(kept.state(), kept.state() + kept.state_bytes());
    CHECK(std::equal(state.begin(), state.end(), longer.state()));
    restored.restore(270, state.data());
    std::vector<float> expected(101), found(101);
    session.forward({{&kept, tokens.data() + 270, 30}}, nullptr, expected.data());
    session.forward({{&restored, tokens.data() + 270, 30}}, nullptr, found.data());
    CHECK(expected == found);
  }
}

// Memory is that of the positions read, and as many bytes as kv_cache.h says.
void check_memory() {
  const auto model = small_model(4, 0);  // 2 layers, 2 key heads, 8 channels
  const auto tokens = some_tokens(300);
  const std::pair<CacheType, size_t> sizes[] = {{CacheType::fp32, (8 + 16) * 4},
                                                {CacheType::fp16, (8 + 16) * 2},
                                                {CacheType::int8, 32 + 16 + 8},
                                                {CacheType::int4, (32 + 16) / 2 + 8}};
  for (const auto& [type, bytes] : sizes) {
    constexpr int kContext = 1 << 18;
    Sequence sequence(*model, kContext, type);
    CHECK(sequence.cache.bytes(kContext) == kContext * 2 * 2 * bytes);
    CHECK(sequence.cache.bytes(257) == 512 * 2 * 2 * bytes);
    Session(model, {1, Activations::int8}).forward({{&sequence, tokens.data(), 300}}, nullptr, nullptr);
    const size_t page = sysconf(_SC_PAGESIZE), reserved = sequence.cache.bytes(kContext);
    std::vector<unsigned char> resident((reserved + page - 1) / page);
    CHECK(mincore(sequence.cache.data(), reserved, resident.data()) == 0);
    size_t touched = 0;
    for (const unsigned char one : resident) touched += (one & 1) * page;
    CHECK(touched > 0 && touched <= sequence.cache.bytes(300) + (size_t{2} << 20));  // a huge page may be given whole
  }
}

void check_compare() {
  const auto model = small_model(0, 0), other = small_model(4, 0);
  Session a(model, {2, Activations::fp32}), b(other, {2, Activations::fp32});
  Sequence sa(*model, 64, CacheType::fp32), sb(*other, 64, CacheType::fp32);
  const auto tokens = some_tokens(60);
  std::vector<float> ha(60 * 48), hb(ha), la(60 * 101), lb(la);
  a.forward({{&sa, tokens.data(), 60}}, ha.data(), nullptr), b.forward({{&sb, tokens.data(), 60}}, hb.data(), nullptr);
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
    const auto p_best = std::max_element(p, p + 101), q_best = std::max_element(q, q + 101);
    CHECK(std::fabs(found[row].confidence_reference - std::exp(*p_best) / p_total) < 1e-5);
    CHECK(found[row].agrees == (p_best - p == q_best - q));
    CHECK(found[row].right_reference == (p_best - p == tokens[row]) && found[row].right == (q_best - q == tokens[row]));
  }
}

void check_candidates() {
  std::vector<Candidate> expected;
  for (const float logit : normal(3000, 5, 20.0f)) {
    const int token = static_cast<int>(expected.size());
    expected.push_back({token % 3 ? logit : std::nearbyint(logit), token});  // with equals, and zeros of both signs
  }
  auto sorted = expected;
  sort_by_logit(sorted);
  std::stable_sort(expected.begin(), expected.end(), [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  for (size_t i = 0; i < sorted.size(); i++) CHECK(sorted[i].token == expected[i].token);
}

void check_sampler() {
  const std::vector<float> logits = {1.0f, 3.0f, 2.0f, -1.0f};
  const auto shares = [&](SamplerOptions options, std::vector<int32_t> seen, int draws = 1000) {
    Sampler sampler(options);
    std::vector<double> share(4);
    for (int i = 0; i < draws; i++) share[sampler.pick(logits.data(), 4, seen)] += 1.0 / draws;
    return share;
  };
  CHECK(shares({}, {})[1] > 0.9999);
  const auto plain = shares({.temperature = 1.0f, .seed = 3}, {}, 20000);
  const double total = std::exp(1.0) + std::exp(3.0) + std::exp(2.0) + std::exp(-1.0);
  for (int i = 0; i < 4; i++) CHECK(std::fabs(plain[i] - std::exp(logits[i]) / total) < 0.015);
  CHECK(shares({.temperature = 1.0f, .top_k = 2}, {})[0] == 0.0);
  CHECK(shares({.temperature = 1.0f, .top_p = 0.5f}, {})[1] > 0.9999);
  CHECK(shares({.temperature = 1.0f, .min_p = 0.3f}, {})[0] == 0.0);
  CHECK(shares({.repetition_penalty = 2.0f}, {1})[2] > 0.9999);
}

}  // namespace

std::vector<Case> runtime_cases() {
  return {{"packing", check_packing},
          {"loading", check_loading},
          {"prompt and steps", [] { check_steps({4}, {CacheType::fp16, CacheType::int4}); }},
          {"prompt and steps, other caches", [] { check_steps({4}, {CacheType::fp32, CacheType::int8}); }},
          {"prompt and steps, other widths", [] { check_steps({0, 2, 3, 6, 8}, {CacheType::fp16}); }},
          {"cache types", check_cache_types},
          {"batches", check_batches},
          {"mixtures of experts", check_experts},
          {"context and tokens", check_limits},
          {"state", check_state},
          {"memory", check_memory},
          {"compare", check_compare},
          {"candidates", check_candidates},
          {"sampler", check_sampler}};
}
