// One sequence being read and written: the KV cache and the whole token step.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

#include "bitwright/kernels.h"
#include "bitwright/model.h"
#include "bitwright/thread_team.h"

namespace bitwright {

enum class Activations { int8, int16, fp32 };

struct SessionOptions {
  int context = 2048;
  int threads = 1;
  Activations activations = Activations::int8;
  DenseType cache = DenseType::fp16;  // fp32, fp16 or int8
};

// Keys as panels of 16 positions, values as panels of 16 channels, so that both products of attention are
// `dense_panel` calls. int8 has one scale for each position and head.
class KvCache {
 public:
  KvCache(const Model& model, int context, DenseType type);
  void write(int layer, int head, int position, const float* key, const float* value);
  const void* key_panel(int layer, int head, int position) const;               // [head_dim][16], position a multiple of 16
  const void* value_panel(int layer, int head, int block, int position) const;  // [positions ..][16]
  const float* key_scales(int layer, int head) const { return scales(layer, head, 0); }
  const float* value_scales(int layer, int head) const { return scales(layer, head, 1); }
  DenseType type() const { return type_; }
  size_t bytes() const { return keys_.size() + values_.size() + scales_.size(); }

 private:
  const float* scales(int layer, int head, int which) const;
  int unit() const { return type_ == DenseType::fp32 ? 4 : type_ == DenseType::fp16 ? 2 : 1; }
  size_t slot(int layer, int head) const { return static_cast<size_t>(layer) * heads_ + head; }

  int heads_, head_dim_, padded_dim_, context_;
  DenseType type_;
  Buffer keys_, values_, scales_;
};

// The rows that a matrix product reads, in one basis: as floats and as int8, as its matrices need them.
struct RowForm {
  RowForm(int rows, int columns, int tile);
  Buffer dense, codes, scales, negated_sums;
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

  // Reads `count` tokens at the current position. `hidden`, if given, takes (count, hidden) rows after the final norm;
  // `logits`, if given, takes the last token's (vocabulary,) logits. Throws std::length_error beyond the context and
  // std::out_of_range for a token outside the vocabulary.
  void forward(const int32_t* tokens, int count, float* hidden, float* logits);
  // Logits of rows that `forward` gave as hidden: (rows, vocabulary).
  void project(const float* hidden, int rows, float* logits);
  // Forgets all but the first `position` tokens.
  void rewind(int position);

  int position() const { return position_; }
  int context() const { return options_.context; }
  const Model& model() const { return *model_; }
  size_t cache_bytes() const { return cache_.bytes(); }
  ThreadTeam& team() { return team_; }

 private:
  struct Product {
    const Matrix* matrix;
    float* out;
    int stride;
    bool accumulate;
    const std::vector<float>* bias;
  };
  // What one thread owns.
  struct Scratch {
    RowBuffer row;                             // this thread's own copy of a single row
    std::vector<float> line, rotated;          // one row of floats
    std::vector<uint8_t> codes;                // a panel as bytes
    std::vector<float> panel;                  // a panel as floats
    std::vector<float> pairs;                  // products of the two halves of wide codes
    std::vector<float> queries, scores, sums;  // attention
  };

  void run_chunk(const int32_t* tokens, int count, float* hidden, float* logits);
  void run_layer(int thread, int index, int count);
  void run_mlp(int thread, const Layer& layer, int count);
  void embed(int thread, const int32_t* tokens, int count);
  void prepare_angles(int count);
  void write_cache(int thread, int index, int count);
  void attend(int thread, int index, int count);
  void attend_rows(int thread, int index, int first_token, int tokens, int first_head, int heads);
  int fill_queries(Scratch& scratch, const Layer& layer, int first_token, int tokens, int first_head, int heads);
  void turn(float* head, const Rope& rope, const float* angles) const;
  const float* angles(const Layer& layer, int token) const;
  void finish_block(int thread, int count, const std::vector<float>& post_norm);

  // Puts rows 0 .. count-1, as `read(row, line)` gives them, into the form that the products need, then multiplies.
  // See products.h; the caller places the barrier behind it.
  template <class Read>
  void multiply(int thread, int count, int columns, std::initializer_list<Product> products, const Read& read);
  // The forms that a set of matrices wants of its rows.
  struct Wanted {
    bool dense = false, integer = false, rotated_dense = false, rotated_integer = false;
  };
  Wanted wanted(std::initializer_list<Product> products) const;
  void place_row(Scratch& scratch, RowBuffer& rows, const Wanted& forms, int row, int count, int columns, const float* x);
  void place_dense(RowForm& form, int row, int count, int columns, const float* x);
  void place_integer(RowForm& form, int row, int count, int columns, bool whole, const float* x);
  void multiply_range(Scratch& scratch, const RowBuffer& rows, int count, const Product& product, PanelRange range);
  void multiply_decoded(Scratch& scratch, const RowForm& rows, int count, const Matrix& matrix, PanelRange range, Output out);
  void multiply_wide(Scratch& scratch, const QuantizedRows& rows, const Matrix& matrix, PanelRange range, Output out);
  QuantizedRows quantized_rows(const RowForm& form, int count, int columns, bool whole) const;
  bool integer(const Matrix& matrix) const { return matrix.quantized() && options_.activations != Activations::fp32; }
  int width() const { return options_.activations == Activations::int16 ? 2 : 1; }  // int8 rows for a token

  std::shared_ptr<const Model> model_;
  SessionOptions options_;
  const Kernels& kernels_;
  ThreadTeam team_;
  KvCache cache_;
  int position_ = 0;
  RowBuffer rows_;
  std::vector<Scratch> scratch_;
  std::vector<float> stream_, queries_, keys_, values_, attended_, gate_, up_, block_;
  std::vector<std::vector<float>> angles_;  // for each rope: (chunk, dim / 2, cosine and sine)
};

}  // namespace bitwright
