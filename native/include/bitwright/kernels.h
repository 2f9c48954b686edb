// The one dispatch table: every hot loop of the engine, once for each instruction set.
//
// All kernels work on panels: 16 consecutive output rows side by side, one vector lane a row, so that no product
// is ever added across lanes, but for one row of input and weights whose rows have tables of their own.
//
//   dense panel       [k][16]                                       fp32, fp16 or bf16 values
//   quantized panel   scales, zero points, [block of 32 k][codes]   one record after the other, so that memory is read in
//                                                                   one stream; see kernels/codes.h
//
// Activations come in tiles of up to `tile` tokens, the token running fastest: x[k][token].
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitwright {

constexpr int kPanelRows = 16;
constexpr int kBlock = 32;           // columns that share one activation scale
constexpr int kAttentionSpan = 256;  // positions that attention takes at a time
constexpr int kLargestHadamard = 1024;
constexpr int kFewRows = 16;         // rows of activations that codes are taken apart for in registers, at most
constexpr int kPackedRows = 16;      // rows that a matrix unit takes at once
constexpr int kMatrixStep = 32;      // columns of bf16 that it takes at once
constexpr int kMatrixRows = 192;     // queries that attention turns keys and values for
constexpr int kMatrixTogether = 32;  // of these, how many go through the unit and the softmax at a time

// How many bytes ahead of itself decoding asks for codes. Measured: 4096 on Intel's Sapphire Rapids, 1536 on AMD's Zen 3.
extern const size_t kFetchAhead;

enum class DenseType : int { fp32, fp16, bf16 };
enum class ScaleType : int { fp32, fp16, multiple };  // multiple: one fp32 scale a row, times an int8 for each group
enum class ZeroType : int { middle, uint8, fp32 };    // middle: 2^(bits-1) for all
enum class TableType : int { none, tensor, row };     // whose table of levels the codes look up; none: codes are levels

constexpr int kTableLevels = 16;

// Bytes that one block (16 rows x 32 columns) of codes takes at this width: 2, 3, 4 or 8 bits.
constexpr int code_bytes(int bits) { return kPanelRows * kBlock * bits / 8; }

struct DensePanels {
  const void* values;  // [panel][k][16]
  DenseType type;
  int rows, columns;
};

// weight = scale * (level - zero_point): the level is the code, or what the table has for it. A zero point need not be
// whole: GGUF's types with a minimum have zero_point = -minimum / scale.
struct QuantizedPanels {
  const uint8_t* records;  // [panel][record]: scales [group][16] (multiple: [16]), then zero points or multiples [group][16],
                           // or tables of rows, then codes
  const uint8_t* table;    // TableType::tensor: [16] levels, 128 standing for zero
  TableType table_type;
  size_t record_bytes, zeros_at, codes_at;
  ScaleType scale_type;
  ZeroType zero_type;
  int bits;
  int rows, columns;
  int blocks;            // ceil(columns / 32)
  int blocks_per_group;  // blocks that share a scale; `blocks` for one scale a row
  int groups() const { return (blocks + blocks_per_group - 1) / blocks_per_group; }
  const uint8_t* record(int panel) const { return records + static_cast<size_t>(panel) * record_bytes; }
};

// Where one row of activations goes: its first entries in the arrays of QuantizedRows. Scales and sums of its further blocks
// are `tile` apart, and so are its codes unless they are packed.
struct RowTarget {
  int tile;
  bool packed;
  int32_t* codes;
  float* scales;
  int32_t* negated_sums;
  int32_t* negated_total;
  int32_t* block(int b) const { return packed ? codes + b / 2 * kPackedRows * 16 + b % 2 * 8 : codes + b * 8 * tile; }
  int step() const { return packed ? 1 : tile; }  // from four codes to the next of a block
};

// Rows of int8 activations: x = scale * code, |code| <= 127. Either one scale for each block of 32, or one for the whole
// row: then sums stay whole over a group, and over the row where the weights allow it.
struct QuantizedRows {
  int rows, blocks, tile;
  bool whole;                     // one scale a row
  bool packed;                    // tiles of kPackedRows rows as a matrix unit loads them; always read in full
  const int32_t* codes;           // [tile index][block * 8][tile], four in each; packed: [tile index][block / 2][row][16]
  const float* scales;            // [tile index][block][tile]; whole: [tile index][tile]
  const int32_t* negated_sums;    // [tile index][block][tile], minus the sum of the block's codes
  const int32_t* negated_totals;  // [row], minus the sum of all

  // Entries of `codes` that a tile takes.
  size_t tile_codes() const { return static_cast<size_t>(tile) * (packed ? (blocks + 1) / 2 * 2 : blocks) * 8; }
  // `count` rows from a tile's first on.
  QuantizedRows part(int first, int count) const {
    const size_t tiles = first / tile, block = static_cast<size_t>(first) * blocks;
    return {count,
            blocks,
            tile,
            whole,
            packed,
            codes + tiles * tile_codes(),
            scales + (whole ? first : block),
            negated_sums + block,
            negated_totals + first};
  }
  // For whoever owns the arrays and fills them.
  RowTarget target(int row) const {
    const size_t index = row / tile, lane = row % tile, block = index * tile * blocks + lane;
    return {tile,
            packed,
            const_cast<int32_t*>(codes) + index * tile_codes() + lane * (packed ? 16 : 1),
            const_cast<float*>(scales) + (whole ? row : block),
            const_cast<int32_t*>(negated_sums) + block,
            const_cast<int32_t*>(negated_totals) + row};
  }
};

// Bytes of scratch that quantized_matmul needs: two panels as bytes, with float scales and zero points.
constexpr size_t matmul_scratch_bytes(int blocks) {
  return 2 * static_cast<size_t>(blocks + 1) * (code_bytes(8) + 2 * kPanelRows * sizeof(float)) + 64;
}

struct MemoryRange {
  const uint8_t* begin;
  size_t bytes;
};

// `count` ranges like the first, `stride` bytes apart.
struct MemoryStrips {
  MemoryRange first;
  size_t stride = 0;
  int count = 1;
};

// Cached keys (16 positions a panel, columns are channels) or values (16 channels a panel, columns are positions) as
// unsigned codes of 4 or 8 bits: value = code - cached_zero(bits), times a scale of the position. See kernels/cached.h.
struct CachedPanels {
  const uint8_t* codes;  // [panel, `stride` bytes apart][block of 32 columns][code_bytes(bits)]
  const float* scales;   // [panel][16], or null where the positions are columns: their scales are in the rows then
  size_t stride;
  int bits, blocks, panels;
  MemoryRange ahead{};  // asked for from memory meanwhile
};

// Rows that cached panels are multiplied by, one unit for each block of 32: x = unit * code with one digit,
// x = unit * (254 * high + low) with two.
struct CachedRows {
  int rows, digits;
  const int8_t* codes;  // [block][row][digit, the high one first][32]
  const float* units;   // [block][row]
  const float* sums;    // [block][row], the sum of the block's x / unit
};

constexpr float cached_zero(int bits) { return bits == 4 ? 7.5f : 128.0f; }  // four bits have no level at zero: 16 even ones

// Panels in half precision, of 16 lanes each, that follow one another.
struct HalfPanels {
  const uint16_t* values;  // [panel, `stride` entries apart][column][16]
  size_t stride;
  int columns, count;
  MemoryStrips ahead{};  // asked for from memory meanwhile
};

// The same as a matrix unit reads them: pairs of bf16, matrix_entries(16, columns) a panel.
struct TurnedPanels {
  const uint16_t* entries;
  size_t stride;
  int count;
};

// One row of a softmax over the entries [low, high): the highest (minus infinity if there is none) and the sum of
// exp(entry - highest) are filled in.
struct SoftmaxRow {
  int low, high;
  float peak, total;
};

constexpr int matrix_steps(int columns) { return (columns + kMatrixStep - 1) / kMatrixStep; }
// Entries that `rows` rows of bf16 take when they are packed for a matrix unit.
constexpr size_t matrix_entries(int rows, int columns) {
  return static_cast<size_t>((rows + kPackedRows - 1) / kPackedRows * kPackedRows) * matrix_steps(columns) * kMatrixStep;
}

// Activations of one tile: x(k, t) at values[k * stride + t], or at values[k + t * kAttentionSpan] if `by_row`.
struct DenseInput {
  const float* values;
  int stride;
  bool by_row;
};

// Where the products go: values[token * stride + row], row 0 being the first of the panels at hand; added to what is
// there if `accumulate`.
struct Output {
  float* values;
  ptrdiff_t stride;
  bool accumulate;
};

// Attention on a matrix unit that multiplies bf16; see kernels/tiled_attention.h.
struct MatrixAttention {
  // Writes one of the rows.
  void (*row)(const float* x, int columns, int row, uint16_t* out);
  // Writes rows of exp(score - peak) where they see scores, zero elsewhere. Scores lie kAttentionSpan apart and are read in
  // whole steps.
  void (*softmax)(const float* scores, int columns, SoftmaxRow* rows, int count, uint16_t* out);
  void (*turn)(const HalfPanels&, uint16_t* out);
  // The unit is made ready for products with so many rows, or for more than kPackedRows, until `end`.
  void (*begin)(int rows);
  void (*end)();
  // out[row][16 a panel] of the first `steps` times kMatrixStep columns, which is all that rows have: as many rows as fill
  // whole tiles are written.
  void (*matmul)(const TurnedPanels&, const uint16_t* rows, int count, int steps, Output out);
};

struct PanelRange {
  int begin, end;
};

// Levels in ascending order that 16 rows are rounded to, where they are no even grid; see formats/table.py. A weight over its
// scale takes the place that counts the thresholds below it. One table a row, or one for each of a row's groups.
struct RoundingTables {
  int levels;               // 0: an even grid
  bool by_group;            // entries below stand behind each other for all groups
  const float* thresholds;  // [levels - 1][16]
  const float* values;      // [levels][16]
  const float* codes;       // [levels][16]
};

// 16 rows of weights that are being rounded, [column][16], columns in the order of rounding. Each column has one grid a row:
// level = clip(rint(w / scale) + zero_point, low, high), those of group_of[column], [group][16]; or its code in `tables`.
struct RoundingPanel {
  int columns;
  const int32_t* group_of;
  const float* scales;
  const float* zero_points;
  int low, high;
  RoundingTables tables;
};

struct Kernels {
  const char* name;
  int tile;  // tokens in a full tile
  // Up to so many rows of int8 lie one after the other (tile 1): where weights are bytes, or whole numbers, under one scale a
  // row; and up to kFewRows of all others.
  int few_of_bytes, few_of_multiples;
  bool packed;  // more of them lie packed

  const MatrixAttention* attention;  // null where there is no such unit

  // One dense panel times up to `tile` tokens.
  void (*dense_panel)(DenseType, const void* panel, int k, DenseInput x, int tokens, Output out);
  // Cached panels times up to tile / digits rows: out[row][16 a panel].
  void (*cached_panels)(const CachedPanels&, const CachedRows& x, Output out);
  // Writes one of the rows: x, times `factors` unless they are null.
  void (*cached_row)(const float* x, const float* factors, int columns, int row, const CachedRows& out);
  // Panels times all rows of x (tile layout [tile index][k][tile]).
  void (*dense_matmul)(const DensePanels&, const float* x, int tokens, PanelRange, Output out);
  // One row of x (tile 1): codes are decoded in registers.
  void (*quantized_vector)(const QuantizedPanels&, const QuantizedRows& x, PanelRange, Output out);
  // Many rows of x: each panel is decoded once into `scratch` (matmul_scratch_bytes) and reused. Up to kFewRows rows that lie
  // one after the other (tile 1) are multiplied as the codes are decoded.
  void (*quantized_matmul)(const QuantizedPanels&, const QuantizedRows& x, PanelRange, Output out, uint8_t* scratch);
  // One panel to float: out[k][16].
  void (*dequantize_panel)(const QuantizedPanels&, int panel, float* out);

  // One row to int8 with a scale for each block, or one in all.
  void (*quantize_row)(const float* x, int columns, bool whole, RowTarget target);
  // One row to 15 bits as two rows of int8: x = scale * (254 * high + low).
  void (*quantize_row_wide)(const float* x, int columns, bool whole, RowTarget high, RowTarget low);
  // Orthonormal Hadamard transform (Sylvester's order) of each `block` of x, a power of two up to kLargestHadamard; out may
  // be x.
  void (*hadamard)(const float* x, int columns, int block, float* out);

  void (*rms_norm)(const float* x, const float* weight, int n, float epsilon, float* out);
  void (*gated_silu)(const float* gate, const float* up, int n, float* out);
  void (*gated_gelu)(const float* gate, const float* up, int n, float* out);
  void (*softcap)(float* x, int n, float cap);
  // x <- exp(x - shift); returns the sum
  float (*exp_shifted)(float* x, int n, float shift);
  double (*sum_exp)(const float* x, int n, float shift);  // the same sum, x unchanged
  float (*maximum)(const float* x, int n);
  void (*to_fp16)(const float* x, int n, uint16_t* out);
  // (x[i], x[i + half]) turned by an angle each: `angles` holds the cosines, then the sines.
  void (*rotate_pairs)(float* x, const float* angles, int half);
  void (*scale)(float* x, int n, float factor);
  void (*add_scaled)(const float* x, int n, float factor, float* out);  // out += factor * x
  // sum of exp(p - p_shift) * (p - q): the part of a KL divergence that needs all of both rows; see compare.cpp
  double (*expected_gap)(const float* p, const float* q, int n, float p_shift);

  // Quantization: groups of n values against one grid each, level = clip(rint(x / scale) + zero_point, low, high).
  void (*encode_group)(const float* x, int n, float scale, float zero_point, int low, int high, uint8_t* codes);
  float (*squared_error)(const float* x, int n, float scale, float zero_point, int low, int high);
  // the nearest of few levels times the scale, each error counted `importance` times where there is any
  float (*table_error)(const float* x, const float* importance, int n, float scale, const float* levels, int count);
  // sum x q and sum q q over levels q of the group, for the least-squares scale
  void (*scale_sums)(const float* x, int n, float scale, float zero_point, int low, int high, float* xq, float* qq);

  // GPTQ: weights become levels. `factor` (U) and `drift` (P, or null) are (columns, columns); see kernels/compensate.h.
  void (*compensate_panel)(const RoundingPanel&, const float* factor, const float* drift, float* weights);
  // One sweep of coordinate descent; `values` are rounded weights, `residuals` their difference to the true ones times H.
  void (*descend_panel)(const RoundingPanel&, const float* gram, float* values, float* residuals, float* levels);
};

// Best first. The environment variable BITWRIGHT_ISA forces one by name; throws std::runtime_error if this machine
// lacks it or no such name exists.
const Kernels& kernels();
// By name, or null if unknown or unsupported here. `supported_kernels` fills names of those this machine can run.
const Kernels* kernels_named(const char* name);
int supported_kernels(const char** names, int capacity);
// Whether the set in use is the named one or stands before it in the table.
bool includes_set(const char* name);

}  // namespace bitwright
