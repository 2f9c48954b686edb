// The whole token step, for the rows of any number of sequences at once.
//
// A row's result does not depend on the rows beside it nor on the number of threads: reading tokens one by one, in
// pieces of any length or beside other sequences gives the same bits.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "bitwright/kernels.h"
#include "bitwright/kv_cache.h"
#include "bitwright/model.h"
#include "bitwright/thread_team.h"

namespace bitwright {

enum class Activations { int8, int16, fp32 };

struct SessionOptions {
  int threads = 1;
  Activations activations = Activations::int8;
};

// What a step spends its time on, in the order of the work. Norms and activations belong to the products that read them.
enum Stage { kEmbedding, kQueryKeyValue, kAttention, kOutput, kGateUp, kDown, kHead, kStages };

// Tokens to read at a sequence's current position.
struct Piece {
  Sequence* sequence;
  const int32_t* tokens;
  int count;
};

// Rows of floats, in huge pages: products write a cache line of each of many rows by turns.
class FloatRows {
 public:
  FloatRows() = default;
  FloatRows(int rows, int width) : memory_(static_cast<size_t>(rows) * width * sizeof(float)) {}
  float* data() { return memory_.as<float>(); }
  const float* data() const { return memory_.as<float>(); }
  size_t bytes() const { return memory_.size(); }

 private:
  Buffer memory_;
};

// The rows that a matrix product reads, in one basis: as floats and as int8, as its matrices need them.
struct RowForm {
  RowForm(int rows, int columns, int tile);
  Buffer dense, codes, scales, negated_sums, negated_totals;
};

// The same rows as they are, and rotated block by block for matrices that are; see `rotation_block`.
struct RowBuffer {
  RowBuffer(int rows, int columns, int tile) : plain(rows, columns, tile), rotated(rows, columns, tile) {}
  RowForm plain, rotated;
  const RowForm& form(const Matrix& matrix) const { return matrix.rotated() ? rotated : plain; }
};

class Session {
 public:
  Session(std::shared_ptr<const Model> model, const SessionOptions& options);

  // Reads every piece at the position of its sequence; no sequence may come twice. `hidden`, if given, takes the rows
  // after the final norm, piece after piece: (all tokens, hidden). `logits`, if given, takes those of each piece's last
  // token: (pieces, vocabulary). Throws std::length_error beyond a context, std::out_of_range for a token outside the
  // vocabulary and std::invalid_argument for an empty or repeated piece, all before anything is read.
  void forward(const std::vector<Piece>& pieces, float* hidden, float* logits);
  // Logits of rows that `forward` gave as hidden: (rows, vocabulary).
  void project(const float* hidden, int rows, float* logits);

  // For the steps to come.
  void set_activations(Activations activations) { options_.activations = activations; }

  const Model& model() const { return *model_; }
  ThreadTeam& team() { return team_; }
  // Seconds that all steps so far have spent in each stage: barriers included, as the first thread sees it.
  const std::array<double, kStages>& stage_seconds() const { return stage_seconds_; }
  // Memory that rows and threads take, whatever the weights are; attention's partial results grow with the context.
  size_t buffer_bytes() const;

 private:
  struct Product {
    const Matrix* matrix;
    float* out;
    int stride;
    bool accumulate;
    const std::vector<float>* bias;
    const Matrix* times = nullptr;  // out = activation(matrix x) * (times x) where given, for more rows than a few
    size_t bytes() const { return matrix->bytes() + (times == nullptr ? 0 : times->bytes()); }
  };
  // What one thread owns.
  struct Scratch {
    RowBuffer row;                     // this thread's own copy of a single row
    std::vector<float> line, rotated;  // one row of floats
    std::vector<uint8_t> codes;        // a panel as bytes
    std::vector<float> panel;          // a panel as floats
    std::vector<float> pairs;          // products of the two halves of wide codes
    FloatRows gated;                   // products of kGatedPanels with all rows, of the gate and of what it opens
    FloatRows scores;                  // attention: (rows taken together, kAttentionSpan)
    std::vector<float> partials;       // (spans, rows of a tile, partial_stride)
    std::vector<float> span_weights;   // (heads of a tile, spans): of one token's partial results
    std::vector<int8_t> weight_codes;  // the scores as CachedRows
    std::vector<float> weight_units, weight_sums;
    Buffer weights, keys, values;  // on a matrix unit: scores and a span of the cache as it reads them
    MemoryRange ahead{};           // attention: what of the cache this thread reads next, not asked for yet

    MemoryRange take_ahead(size_t bytes);  // its first bytes
  };
  // A piece's tokens that are in the chunk at hand.
  struct Slice {
    Sequence* sequence;
    int row, count, position;  // first row of the chunk, number of rows, position of the first
  };
  // Rows that are attended together: query heads of one key head, for tokens that follow one another.
  struct QueryTile {
    int slice, row, tokens;  // first row of the chunk, number of tokens
    int kv_head, first_head, heads;
    size_t partials;  // where its partial results begin in `partials_`, or kWhole
    size_t queries;   // where its queries begin in `query_tiles_`
    int rows() const { return tokens * heads; }
  };
  struct Interval {
    int begin, end;
  };
  // What one thread attends at once: a tile's span, or all spans of a tile that is not shared out.
  struct AttentionItem {
    int tile = -1, span = 0;
  };
  static constexpr size_t kWhole = ~size_t{0};  // all spans of the tile are taken by one thread

  using Clock = std::chrono::steady_clock;

  void check(const std::vector<Piece>& pieces) const;
  void lap(int thread, Stage stage);  // what has passed since the last lap was spent in this stage
  void run_chunk(const std::vector<int32_t>& tokens, float* hidden, float* logits);
  std::vector<Product> head_products(float* logits) const;
  void write_logits(int thread, float* logits);
  void cap_logits(int thread, int rows, float* logits);
  const float* final_row(int row, float* line) const;
  void run_layer(int thread, int index, int count);
  void run_mlp(int thread, const Layer& layer, int count);
  template <class Read>
  void multiply_opening(int thread, int count, const Matrix& gate, const Matrix& up, const Read& read);
  const float* opened(int row, bool few, float* line) const;
  // One token of a mixture at one of its experts: its row of the chunk, the expert, and its share of the sum.
  struct Routed {
    int row, expert;
    float share;
  };
  void run_experts(int thread, const Layer& layer, int count);
  void choose_experts(int row);
  void sort_by_expert(int count);
  void run_expert(int thread, const Expert& expert, std::span<const Routed> rows);
  void run_chosen(int thread, const Layer& layer);
  void embed(int thread, const std::vector<int32_t>& tokens);
  void prepare_angles(int row);
  void prepare_tiles();
  void prepare_attention(int thread, const Layer& layer, int index);
  void write_cache(int thread, const Layer& layer, int index);
  void fill_queries(const QueryTile& tile, const Layer& layer, float* line);
  void attend(int thread, const Layer& layer, int index);
  void attend_item(int thread, int index, AttentionItem item);
  void attend_whole(int thread, int index, int tile);
  void attend_span(int thread, int index, int tile, int span, float* partial);
  void attend_on_matrix(Scratch& scratch, int index, const QueryTile& tile, int span, float* partial);
  void score(Scratch& scratch, int index, int tile, int span, Interval positions);
  MemoryRange part_of_span(const QueryTile& tile, int index, int span) const;
  void weigh(Scratch& scratch, int index, int tile, int span, int count, float* sums);
  void merge(int thread, const QueryTile& tile, int token, const float* partials, const Layer& layer, float* out);
  const float* attended(int thread, int row, const Layer& layer, float* line);
  Interval spans(const QueryTile& tile, const Layer& layer) const;
  // Whether a matrix unit attends: products of eight bits ask for no more than its bf16 gives.
  bool on_matrix(const KvCache& cache) const {
    return kernels_.attention != nullptr && quantized_ && options_.activations == Activations::int8 &&
           cache.type() == CacheType::fp16;
  }
  int attention_rows(const KvCache& cache) const {
    return on_matrix(cache) ? kMatrixRows : cache.coded() ? kernels_.tile / digits() : kernels_.tile;
  }
  size_t query_floats(const KvCache& cache, int rows) const;  // that a tile takes
  const uint16_t* matrix_queries(const QueryTile& tile) const {
    return reinterpret_cast<const uint16_t*>(query_tiles_.as<float>() + tile.queries);
  }
  const KvCache& cache(const QueryTile& tile) const { return slices_[tile.slice].sequence->cache; }
  int visible_from(int row, const Layer& layer) const;
  Interval seen(const QueryTile& tile, int row, int span, const Layer& layer) const;
  // A line of cache more than a row: rows whose length is a high power of two times a few would share a few sets of the cache.
  int gate_stride() const { return model_->intermediate + kPanelRows; }
  int wide_head() const { return round_up(model_->head_dim, kPanelRows); }
  // Of a row in a span: sums, the highest score, sum of exponentials; whole lanes, since a matrix unit writes there.
  int partial_stride() const { return wide_head() + kPanelRows; }
  size_t partials_size(const QueryTile& tile) const {  // of a span
    return static_cast<size_t>(round_up(tile.rows(), kPackedRows)) * partial_stride();
  }
  CachedRows query_codes(const QueryTile& tile) const;
  // Digits of queries and softmax weights: as many bits as the activations of linear layers have.
  int digits() const { return options_.activations == Activations::int8 ? 1 : 2; }
  void turn(float* head, const Layer& layer, int row) const;
  void finish_block(int thread, int count, const std::vector<float>& post_norm);

  // Puts rows 0 .. count-1, as `read(row, line)` gives them, into the form that the products need, then multiplies.
  // See products.h; the caller places the barrier behind it.
  template <class Read>
  void multiply(int thread, int count, int columns, std::initializer_list<Product> products, const Read& read) {
    multiply(thread, count, columns, std::span(products.begin(), products.size()), read);
  }
  template <class Read>
  void multiply(int thread, int count, int columns, std::span<const Product> products, const Read& read);
  // The forms that a set of matrices wants of its rows.
  struct Wanted {
    bool dense = false, integer = false, rotated_dense = false, rotated_integer = false;
    bool whole = false;  // of those that are rotated
    bool apart = false;  // rows of codes lie one after the other
  };
  Wanted wanted(std::span<const Product> products, int count) const;
  void place_row(Scratch& scratch, RowBuffer& rows, const Wanted& forms, int row, int count, int columns, const float* x);
  void place_dense(RowForm& form, int row, int count, int columns, const float* x);
  void place_integer(RowForm& form, const Wanted& forms, int row, int count, int columns, bool whole, const float* x);
  // Rows of a buffer that holds `of`; the first begins a tile.
  struct RowRange {
    int first, count, of;
    bool apart;
  };
  int rows_of_range(const Wanted& forms) const;  // a range begins at a multiple of these
  static constexpr int kGatedPanels = 4;
  static constexpr int kRowsEach = 128;  // rows a thread, from which on threads share out rows and not panels
  void multiply_range(Scratch& scratch, const RowBuffer& rows, RowRange at, const Product& product, PanelRange range);
  void multiply_panels(Scratch& scratch, const RowBuffer& rows, RowRange at, const Matrix& matrix, PanelRange range, Output out);
  void multiply_gated(Scratch& scratch, const RowBuffer& rows, RowRange at, const Product& product, PanelRange range, float* out);
  void multiply_decoded(Scratch& scratch, const float* rows, int count, const Matrix& matrix, PanelRange range, Output out);
  void multiply_wide(Scratch& scratch, const QuantizedRows& rows, const Matrix& matrix, PanelRange range, Output out);
  QuantizedRows quantized_rows(const RowForm& form, int count, int columns, bool whole, bool apart) const;
  bool integer(const Matrix& matrix) const { return matrix.quantized() && options_.activations != Activations::fp32; }
  int width() const { return options_.activations == Activations::int16 ? 2 : 1; }  // int8 rows for a token
  // One scale for a row of int8, or one for each block of 32. The latter is finer: the head's answers are the model's.
  bool whole(const Matrix& matrix) const { return matrix.rotated() && !model_->is_output(matrix); }
  // Whether each thread multiplies rows of its own.
  bool shares_rows(int count) const { return team_.size() > 1 && count >= kRowsEach * team_.size(); }
  // So many rows of codes lie one after the other, at most.
  int few_rows(const Matrix& matrix) const {
    if (whole(matrix) && matrix.plain_bytes()) return kernels_.few_of_bytes;
    return whole(matrix) && matrix.multiples() ? kernels_.few_of_multiples : kFewRows;
  }

  std::shared_ptr<const Model> model_;
  SessionOptions options_;
  const Kernels& kernels_;
  const bool quantized_;  // whether any layer multiplies codes
  ThreadTeam team_;
  const int chunk_;  // tokens taken at a time
  RowBuffer rows_;
  std::vector<Scratch> scratch_;
  FloatRows stream_, queries_, keys_, values_, attended_, gate_, up_, block_;
  FloatRows normed_, router_logits_;             // of a mixture of experts: what the MLP reads, (chunk, experts)
  std::vector<Routed> chosen_, routed_;          // (chunk, experts_per_token) by row, and by expert
  std::vector<int> first_routed_, next_routed_;  // of each expert in `routed_`
  std::vector<std::vector<float>> angles_;       // for each rope: (chunk, cosines and sines, dim / 2)

  // The chunk at hand.
  std::vector<Slice> slices_;
  std::vector<int> positions_, ends_;  // of each row; rows whose logits are wanted
  std::vector<QueryTile> tiles_;
  std::vector<Interval> tiles_of_row_;  // the tiles that hold each row's heads
  Buffer query_tiles_;
  std::vector<float> partials_;
  std::atomic<int> next_item_{0};  // attention's work is dealt out as threads come for it
  std::array<double, kStages> stage_seconds_{};
  Clock::time_point last_lap_;
};

}  // namespace bitwright
