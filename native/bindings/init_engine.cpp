#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <any>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "arrays.h"
#include "bitwright/ceilings.h"
#include "bitwright/compare.h"
#include "bitwright/loading.h"
#include "bitwright/sampler.h"
#include "bitwright/session.h"
#include "init.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace bitwright;

namespace {

using Floats = std::vector<float>;

// Of the role "gate.7": the expert's number comes as text.
Matrix* expert_matrix(Layer& layer, const std::string& role, const std::string& number) {
  const bool digits = !number.empty() && number.size() < 6 && number.find_first_not_of("0123456789") == std::string::npos;
  const size_t expert = digits ? std::stoul(number) : layer.experts.size();
  require(expert < layer.experts.size(), "no such expert");
  Expert& at = layer.experts[expert];
  const std::map<std::string, Matrix*> table = {{"gate", &at.gate}, {"up", &at.up}, {"down", &at.down}};
  const auto found = table.find(role);
  require(found != table.end(), "no expert's matrix has the role " + role);
  return found->second;
}

Matrix* matrix_of(Model& model, const std::string& role, int layer) {
  if (role == "embedding" || role == "head") {  // `layer` counts the blocks of rows
    require(layer >= 0 && layer < kMostBlocks, "a vocabulary has at most " + std::to_string(kMostBlocks) + " blocks of rows");
    return role == "head" ? &model.head[layer] : &model.embedding[layer];
  }
  require(layer >= 0 && layer < static_cast<int>(model.layers.size()), "no such layer");
  Layer& at = model.layers[layer];
  if (const size_t dot = role.find('.'); dot != std::string::npos)
    return expert_matrix(at, role.substr(0, dot), role.substr(dot + 1));
  const std::map<std::string, Matrix*> table = {{"q", &at.q},       {"k", &at.k},   {"v", &at.v},       {"o", &at.o},
                                                {"gate", &at.gate}, {"up", &at.up}, {"down", &at.down}, {"router", &at.router}};
  const auto found = table.find(role);
  require(found != table.end(), "no matrix has the role " + role);
  return found->second;
}

Floats* vector_of(Model& model, const std::string& role, int layer) {
  if (role == "final_norm") return &model.final_norm;
  require(layer >= 0 && layer < static_cast<int>(model.layers.size()), "no such layer");
  Layer& at = model.layers[layer];
  const std::map<std::string, Floats*> table = {{"attention_norm", &at.attention_norm},
                                                {"mlp_norm", &at.mlp_norm},
                                                {"post_attention_norm", &at.post_attention_norm},
                                                {"post_mlp_norm", &at.post_mlp_norm},
                                                {"q_norm", &at.q_norm},
                                                {"k_norm", &at.k_norm},
                                                {"q_bias", &at.q_bias},
                                                {"k_bias", &at.k_bias},
                                                {"v_bias", &at.v_bias},
                                                {"o_bias", &at.o_bias}};
  const auto found = table.find(role);
  require(found != table.end(), "no vector has the role " + role);
  return found->second;
}

// Half precision travels as uint16.
template <int kDimensions>
using Reals = std::variant<Array<uint16_t, kDimensions>, Array<float, kDimensions>>;

template <int kDimensions>
bool is_half(const Reals<kDimensions>& reals) {
  return reals.index() == 0;
}

using ZeroPoints = std::variant<Array<uint8_t, 1>, Array<float, 1>>;

using Multiples = std::optional<Array<int8_t, 1>>;
using Table = std::optional<Array<uint8_t, 2>>;

// How the columns of a matrix are quantized, beside its codes and scales.
struct Layout {
  int bits, columns, group;  // group -1: one for the whole tensor
  bool rotated;
};

void check_packed(size_t rows, size_t row_bytes, size_t scales, const Layout& layout, const Multiples& multiples,
                  const Table& table) {
  const auto [bits, columns, group, rotated] = layout;
  require(bits >= 2 && bits <= 8 && columns > 0 && columns <= 1 << 16, "bits must be 2 to 8 and columns 1 to 65536");
  require(row_bytes == (static_cast<size_t>(columns) * bits + 7) / 8, "packed rows have the wrong length");
  require(group < 0 || (group > 0 && columns % group == 0 && (group == columns || group % kBlock == 0)), "this group cannot run");
  const size_t groups = group < 0 ? 1 : rows * (columns / group);
  require(scales == (multiples ? rows : groups), "one scale for each group, or each row where groups have multiples of it");
  require(!multiples || (group > 0 && bits <= 4 && multiples->shape(0) == groups), "one multiple for each group of 2 to 4 bits");
  for (size_t i = 0; multiples && i < groups; i++) require(std::abs(multiples->data()[i]) <= 15, "a multiple is from -15 to 15");
  require(!table || (bits <= 4 && !multiples && table->shape(1) == kTableLevels), "a table has 16 levels, for 2 to 4 bits");
  require(!table || table->shape(0) == 1 || table->shape(0) == rows, "one table for the tensor or one for each row");
}

// A model's matrices on their way into its layout, and the arrays that they are read from until then.
struct Weights {
  explicit Weights(Model& model) : model(model) {}
  Model& model;
  std::vector<std::any> kept;
  Loading loading;  // goes first, and waits for its threads
};

void add_packed(Weights& weights, const std::string& role, int layer, Array<uint8_t, 2> codes, const Reals<1>& scales,
                const std::optional<ZeroPoints>& zero_points, const Layout& layout, const Multiples& multiples,
                const Table& table) {
  const auto size_of = [](const auto& array) { return array.shape(0); };
  const auto data_of = [](const auto& array) { return static_cast<const void*>(array.data()); };
  const size_t rows = codes.shape(0), count = std::visit(size_of, scales);
  check_packed(rows, codes.shape(1), count, layout, multiples, table);
  require(!zero_points || (!multiples && !table && std::visit(size_of, *zero_points) == count), "one zero point for each scale");
  require(!multiples || !is_half<1>(scales), "a row's scale is fp32");
  const ZeroType zero_type = !zero_points ? ZeroType::middle : zero_points->index() == 0 ? ZeroType::uint8 : ZeroType::fp32;
  const PackedSource source{
      .codes = codes.data(),
      .scales = std::visit(data_of, scales),
      .zero_points = zero_points ? std::visit(data_of, *zero_points) : nullptr,
      .scale_type = multiples            ? ScaleType::multiple
                    : is_half<1>(scales) ? ScaleType::fp16
                                         : ScaleType::fp32,
      .zero_type = zero_type,
      .bits = layout.bits,
      .rows = static_cast<int>(rows),
      .columns = layout.columns,
      .group = layout.group,
      .shared_scale = layout.group < 0,
      .multiples = multiples ? multiples->data() : nullptr,
      .table_type = !table                 ? TableType::none
                    : table->shape(0) == 1 ? TableType::tensor
                                           : TableType::row,
      .table = table ? table->data() : nullptr,
      .rotated = layout.rotated,
  };
  weights.kept.emplace_back(std::tuple(codes, scales, zero_points, multiples, table));
  weights.loading.add(*matrix_of(weights.model, role, layer), source);
}

void add_dense(Weights& weights, const std::string& role, int layer, const Reals<2>& values, bool bf16) {
  const DenseType type = !is_half<2>(values) ? DenseType::fp32 : bf16 ? DenseType::bf16 : DenseType::fp16;
  const DenseSource source = std::visit(
      [&](const auto& array) {
        return DenseSource{array.data(), type, static_cast<int>(array.shape(0)), static_cast<int>(array.shape(1))};
      },
      values);
  weights.kept.emplace_back(values);
  weights.loading.add(*matrix_of(weights.model, role, layer), source);
}

void wait_for(Weights& weights) {
  if (weights.kept.empty()) return;
  {
    nb::gil_scoped_release release;
    weights.loading.wait();
  }
  weights.kept.clear();
}

void set_vector(Model& model, const std::string& role, int layer, Array<float, 1> values) {
  vector_of(model, role, layer)->assign(values.data(), values.data() + values.shape(0));
}

void bind_model(nb::module_& m) {
  nb::class_<Model>(m, "Model")
      .def(nb::init<>())
      .def_rw("hidden", &Model::hidden)
      .def_rw("intermediate", &Model::intermediate)
      .def_rw("heads", &Model::heads)
      .def_rw("kv_heads", &Model::kv_heads)
      .def_rw("head_dim", &Model::head_dim)
      .def_rw("vocabulary", &Model::vocabulary)
      .def_rw("epsilon", &Model::epsilon)
      .def_rw("embedding_scale", &Model::embedding_scale)
      .def_rw("attention_scale", &Model::attention_scale)
      .def_rw("attention_softcap", &Model::attention_softcap)
      .def_rw("logit_softcap", &Model::logit_softcap)
      .def_rw("gelu", &Model::gelu)
      .def_rw("experts", &Model::experts)
      .def_rw("experts_per_token", &Model::experts_per_token)
      .def_rw("normalized_routing", &Model::normalized_routing)
      .def(
          "add_rope", [](Model& model, const Floats& frequencies, float factor) { model.ropes.push_back({frequencies, factor}); },
          "inverse_frequencies"_a, "factor"_a)
      .def(
          "add_layer",
          [](Model& model, int rope, int window) {
            model.layers.emplace_back();
            model.layers.back().rope = rope;
            model.layers.back().window = window;
            model.layers.back().experts.resize(std::max(0, model.experts));
          },
          "rope"_a, "window"_a)
      .def("set_vector", &set_vector, "role"_a, "layer"_a, "values"_a)
      .def("check", &Model::check)
      .def_prop_ro("bytes_per_token", &Model::bytes_per_token);
}

void bind_weights(nb::module_& m) {
  nb::class_<Weights>(m, "Weights")
      .def(nb::init<Model&>(), "model"_a, nb::keep_alive<1, 2>())
      .def(
          "add_packed",
          [](Weights& weights, const std::string& role, int layer, Array<uint8_t, 2> codes, const Reals<1>& scales,
             const std::optional<ZeroPoints>& zero_points, int bits, int columns, int group, const Multiples& multiples,
             const Table& table, bool rotated) {
            add_packed(weights, role, layer, codes, scales, zero_points, {bits, columns, group, rotated}, multiples, table);
          },
          "role"_a, "layer"_a, "codes"_a, "scales"_a, "zero_points"_a.none(), "bits"_a, "columns"_a, "group"_a,
          "multiples"_a = nb::none(), "table"_a = nb::none(), "rotated"_a = false)
      .def("add_dense", &add_dense, "role"_a, "layer"_a, "values"_a, "bf16"_a)
      .def("begin", [](Weights& weights) { weights.loading.begin(); })
      .def("wait", &wait_for);
}

using Tokens = Array<int32_t, 1>;

// Sequence i reads the next counts[i] of the tokens.
auto session_forward(Session& session, const std::vector<Sequence*>& sequences, Tokens tokens, const std::vector<int>& counts,
                     bool want_hidden, bool want_logits) {
  const size_t count = tokens.shape(0), width = session.model().hidden, vocabulary = session.model().vocabulary;
  require(sequences.size() == counts.size(), "one count for each sequence");
  std::vector<Piece> pieces;
  size_t at = 0;
  for (size_t i = 0; i < counts.size(); i++) {
    require(sequences[i] != nullptr && counts[i] >= 0 && counts[i] <= static_cast<int64_t>(count - at),
            "counts and tokens differ");
    require(sequences[i]->cache.fits(session.model()), "the sequence belongs to a model of another shape");
    pieces.push_back({sequences[i], tokens.data() + at, counts[i]});
    at += counts[i];
  }
  require(at == count, "counts and tokens differ");
  auto hidden = make_array<float>({want_hidden ? count : 0, width});
  auto logits = make_array<float>({want_logits ? pieces.size() : 0, vocabulary});
  {
    nb::gil_scoped_release release;
    session.forward(pieces, want_hidden ? hidden.data() : nullptr, want_logits ? logits.data() : nullptr);
  }
  return std::make_tuple(hidden, logits);
}

auto sequence_state(Sequence& sequence) {
  auto state = make_array<uint8_t>({sequence.state_bytes()});
  std::memcpy(state.data(), sequence.state(), sequence.state_bytes());
  return state;
}

void sequence_restore(Sequence& sequence, int position, Array<uint8_t, 1> state) {
  require(position >= 0 && position <= sequence.cache.context(), "the state does not fit the context");
  require(state.shape(0) == sequence.cache.bytes(position), "the state has the wrong length");
  sequence.restore(position, state.data());
}

void sequence_follow(Sequence& sequence, const Sequence& other) {
  const KvCache &from = other.cache, &to = sequence.cache;
  require(&other != &sequence && from.layers() == to.layers() && from.heads() == to.heads() && from.head_dim() == to.head_dim(),
          "the sequences belong to models of another shape");
  require(other.position() <= to.context(), "what has been read does not fit the context");
  nb::gil_scoped_release release;
  sequence.follow(other);
}

auto session_project(Session& session, Array<float, 2> hidden) {
  require(hidden.shape(1) == static_cast<size_t>(session.model().hidden), "hidden rows have the wrong width");
  auto logits = make_array<float>({hidden.shape(0), static_cast<size_t>(session.model().vocabulary)});
  nb::gil_scoped_release release;
  session.project(hidden.data(), static_cast<int>(hidden.shape(0)), logits.data());
  return logits;
}

std::map<std::string, double> session_stage_seconds(const Session& session) {
  const char* names[kStages] = {"embedding", "query_key_value", "attention", "output", "gate_up", "down", "head"};
  std::map<std::string, double> seconds;
  for (int stage = 0; stage < kStages; stage++) seconds[names[stage]] = session.stage_seconds()[stage];
  return seconds;
}

auto session_compare(Session& session, Array<float, 2> hidden, Tokens targets, Session* reference,
                     std::optional<Array<float, 2>> reference_hidden) {
  const size_t rows = hidden.shape(0), vocabulary = session.model().vocabulary;
  require(hidden.shape(1) == static_cast<size_t>(session.model().hidden) && targets.shape(0) == rows, "one target for each row");
  for (size_t i = 0; i < rows; i++)
    require(targets.data()[i] >= 0 && static_cast<size_t>(targets.data()[i]) < vocabulary, "a target is not in the vocabulary");
  require((reference != nullptr) == reference_hidden.has_value(), "a reference comes with its hidden rows");
  if (reference != nullptr)
    require(reference_hidden->shape(0) == rows && reference_hidden->shape(1) == static_cast<size_t>(reference->model().hidden) &&
                static_cast<size_t>(reference->model().vocabulary) == vocabulary,
            "the reference has other rows or another vocabulary");
  std::vector<Comparison> compared(rows);
  {
    nb::gil_scoped_release release;
    compare(reference, reference ? reference_hidden->data() : nullptr, session, hidden.data(), static_cast<int>(rows),
            targets.data(), compared.data());
  }
  auto kl = make_array<float>({rows}), nll = make_array<float>({rows}), nll_reference = make_array<float>({rows});
  auto confidence = make_array<float>({rows});
  auto agrees = make_array<bool>({rows}), right = make_array<bool>({rows}), right_reference = make_array<bool>({rows});
  for (size_t i = 0; i < rows; i++) {
    kl.data()[i] = compared[i].kl;
    nll.data()[i] = compared[i].nll;
    nll_reference.data()[i] = compared[i].nll_reference;
    confidence.data()[i] = compared[i].confidence_reference;
    agrees.data()[i] = compared[i].agrees;
    right.data()[i] = compared[i].right;
    right_reference.data()[i] = compared[i].right_reference;
  }
  return std::make_tuple(kl, nll, nll_reference, confidence, agrees, right, right_reference);
}

template <class T>
T named(const std::map<std::string, T>& table, const std::string& name, const char* what) {
  const auto found = table.find(name);
  require(found != table.end(), std::string("unknown ") + what + " " + name);
  return found->second;
}

void bind_sequence(nb::module_& m) {
  nb::class_<Sequence>(m, "Sequence")
      .def(
          "__init__",
          [](Sequence* self, const Model& model, int context, const std::string& cache) {
            require(context > 0, "context is positive");
            const std::map<std::string, CacheType> types = {
                {"fp32", CacheType::fp32}, {"fp16", CacheType::fp16}, {"int8", CacheType::int8}, {"int4", CacheType::int4}};
            new (self) Sequence(model, context, named<CacheType>(types, cache, "cache type"));
          },
          "model"_a, "context"_a, "cache"_a)
      .def("rewind", &Sequence::rewind, "position"_a)
      .def("follow", &sequence_follow, "other"_a)
      .def("state", &sequence_state)
      .def("restore", &sequence_restore, "position"_a, "state"_a)
      .def(
          "cache_bytes", [](const Sequence& sequence, int positions) { return sequence.cache.bytes(positions); }, "positions"_a)
      .def_prop_ro("position", &Sequence::position)
      .def_prop_ro("context", [](const Sequence& sequence) { return sequence.cache.context(); });
}

Activations activations_of(const std::string& name) {
  const std::map<std::string, Activations> kinds = {
      {"int8", Activations::int8}, {"int16", Activations::int16}, {"fp32", Activations::fp32}};
  return named<Activations>(kinds, name, "activations");
}

void bind_session(nb::module_& m) {
  nb::class_<Session>(m, "Session")
      .def(
          "__init__",
          [](Session* self, std::shared_ptr<const Model> model, int threads, const std::string& activations) {
            model->check();
            require(threads > 0, "threads are positive");
            new (self) Session(std::move(model), {threads, activations_of(activations)});
          },
          "model"_a, "threads"_a, "activations"_a)
      .def("forward", &session_forward, "sequences"_a, "tokens"_a, "counts"_a, "hidden"_a, "logits"_a)
      .def("project", &session_project, "hidden"_a)
      .def(
          "set_activations",
          [](Session& session, const std::string& activations) { session.set_activations(activations_of(activations)); },
          "activations"_a)
      .def_prop_ro("stage_seconds", &session_stage_seconds)
      .def_prop_ro("buffer_bytes", &Session::buffer_bytes)
      .def("compare", &session_compare, "hidden"_a, "targets"_a, "reference"_a.none(), "reference_hidden"_a.none());
}

int sampler_pick(Sampler& sampler, Array<float, 1> logits, const std::vector<int32_t>& seen) {
  const size_t count = logits.shape(0);
  require(count > 0, "no logits");
  for (const int32_t token : seen)
    require(token >= 0 && static_cast<size_t>(token) < count, "a seen token is not in the vocabulary");
  return sampler.pick(logits.data(), static_cast<int>(count), seen);
}

}  // namespace

void init_engine(nb::module_& m) {
  bind_model(m);
  bind_weights(m);
  bind_sequence(m);
  bind_session(m);
  nb::class_<Sampler>(m, "Sampler")
      .def(
          "__init__",
          [](Sampler* self, float temperature, int top_k, float top_p, float min_p, float repetition_penalty, uint64_t seed) {
            new (self) Sampler(SamplerOptions{temperature, top_k, top_p, min_p, repetition_penalty, seed});
          },
          "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "repetition_penalty"_a, "seed"_a)
      .def("pick", &sampler_pick, "logits"_a, "seen"_a);
  m.def("isa", [] { return std::string(kernels().name); });
  m.def("supported_isas", [] {
    const char* names[8];
    const int count = supported_kernels(names, 8);
    return std::vector<std::string>(names, names + count);
  });
  m.def("available_cores", &available_cores);
  m.def("fastest_threads", [] {
    nb::gil_scoped_release release;
    return fastest_threads();
  });
  m.def(
      "read_bandwidth",
      [](size_t bytes, int threads, double seconds) {
        nb::gil_scoped_release release;
        return read_bandwidth(bytes, threads, seconds);
      },
      "bytes"_a, "threads"_a, "seconds"_a);
  const std::map<std::string, MatrixType> types = {{"int8", MatrixType::int8}, {"bf16", MatrixType::bf16}};
  m.def(
      "matrix_instruction",
      [types](const std::string& type) -> std::optional<std::string> {
        const char* found = matrix_instruction(named(types, type, "matrix type"));
        return found == nullptr ? std::nullopt : std::optional<std::string>(found);
      },
      "type"_a);
  m.def(
      "matrix_peak",
      [types](const std::string& type, int threads, double seconds) {
        const MatrixType wanted = named(types, type, "matrix type");
        nb::gil_scoped_release release;
        return matrix_peak(wanted, threads, seconds);
      },
      "type"_a, "threads"_a, "seconds"_a);
}
