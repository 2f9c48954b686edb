// Causal attention over the cache. Every span of kAttentionSpan positions gives a row a partial result: its highest score,
// the sum of the exponentials relative to it, and the values weighted by them. Partial results are merged in the order of
// their spans (online softmax: Milakov and Gimelshein 2018, arXiv:1805.02867). Where rows are few, the spans of one row
// are shared out among the threads (Flash-Decoding: Dao et al. 2023); else each thread takes rows of its own. Both ways
// compute the same, so that a row's bits depend neither on its company nor on the threads.
//
// Rows that share a key head are taken together, so that every cached panel read serves all of them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "bitwright/session.h"

namespace bitwright {

namespace {

constexpr int kFewTokens = 8;   // of a piece whose spans are shared out
constexpr int kWriteGroup = 8;  // positions that must be written by one thread: see KvCache::write
constexpr int kLine = 64;       // bytes that memory gives at once

void fetch(MemoryRange range) {
  for (size_t at = 0; at < range.bytes; at += kLine) __builtin_prefetch(range.begin + at, 0, 2);
}

}  // namespace

MemoryRange Session::Scratch::take_ahead(size_t bytes) {
  const MemoryRange first{ahead.begin, std::min(ahead.bytes, bytes / kLine * kLine)};
  ahead = {ahead.begin + first.bytes, ahead.bytes - first.bytes};
  return first;
}

// Floats by channel and row; or rows of one digit or half as many of two, with a unit and a sum for 32 channels; or packed bf16.
size_t Session::query_floats(const KvCache& cache, int rows) const {
  const int dim = model_->head_dim, blocks = (dim + kBlock - 1) / kBlock;
  if (on_matrix(cache)) return round_up(static_cast<int>(matrix_entries(rows, dim) / 2), kPanelRows);
  return static_cast<size_t>(kernels_.tile) * std::max(dim, blocks * (kBlock / 4 + 2));
}

void Session::prepare_tiles() {
  const int group = model_->heads / model_->kv_heads;
  size_t shared = 0, own = 0, queries = 0;
  tiles_.clear();
  tiles_of_row_.resize(positions_.size());
  for (size_t s = 0; s < slices_.size(); s++) {
    const Slice& slice = slices_[s];
    const int capacity = attention_rows(slice.sequence->cache);
    const int heads = std::min(group, capacity), tokens = capacity / heads;
    for (int token = 0; token < slice.count; token += tokens) {
      const int first = static_cast<int>(tiles_.size()), now = std::min(tokens, slice.count - token);
      const size_t spans = (slice.position + token + now - 1) / kAttentionSpan + 1;
      for (int head = 0; head < model_->heads;) {
        const int end = std::min((head / group + 1) * group, head + heads);
        QueryTile tile{static_cast<int>(s), slice.row + token, now, head / group, head, end - head, kWhole, queries};
        queries += query_floats(slice.sequence->cache, tile.rows());
        const size_t size = spans * partials_size(tile);
        if (slice.count <= kFewTokens)
          tile.partials = shared, shared += size;
        else
          own = std::max(own, size);
        tiles_.push_back(tile);
        head = end;
      }
      for (int row = token; row < token + now; row++) tiles_of_row_[slice.row + row] = {first, static_cast<int>(tiles_.size())};
    }
  }
  if (partials_.size() < shared) partials_.resize(shared);
  if (query_tiles_.size() < queries * sizeof(float)) query_tiles_ = Buffer(queries * sizeof(float));
  for (Scratch& scratch : scratch_)
    if (scratch.partials.size() < own) scratch.partials.resize(own);
}

void Session::turn(float* head, const Layer& layer, int row) const {
  const int half = static_cast<int>(model_->ropes[layer.rope].inverse_frequencies.size());
  kernels_.rotate_pairs(head, angles_[layer.rope].data() + static_cast<size_t>(row) * half * 2, half);
}

// Everything that attention reads: the new keys and values in the cache, the queries in tiles. Where threads have rows of their
// own, each takes those that it has just written.
void Session::prepare_attention(int thread, const Layer& layer, int index) {
  if (thread == 0) next_item_.store(0, std::memory_order_relaxed);
  write_cache(thread, layer, index);
  const int count = static_cast<int>(tiles_.size()), rows = static_cast<int>(positions_.size());
  const bool by_rows = shares_rows(rows);
  const Share share = by_rows ? Share(rows, thread, team_.size()) : Share(count, team_.size() - 1 - thread, team_.size());
  for (int tile = 0; tile < count; tile++)
    if (share.has(by_rows ? tiles_[tile].row : tile)) fill_queries(tiles_[tile], layer, scratch_[thread].line.data());
}

void Session::write_cache(int thread, const Layer& layer, int index) {
  const int dim = model_->head_dim, heads = model_->kv_heads, rows = static_cast<int>(positions_.size());
  const bool by_rows = shares_rows(rows);
  const Share own(rows, thread, team_.size());
  int item = 0;
  for (const Slice& slice : slices_) {
    const int end = slice.position + slice.count;
    for (int from = slice.position; from < end;) {
      const int to = std::min(end, (from / kWriteGroup + 1) * kWriteGroup);
      for (int head = 0; head < heads; head++) {
        if (by_rows ? !own.has(slice.row + from - slice.position) : item++ % team_.size() != thread) continue;
        for (int position = from; position < to; position++) {
          const int row = slice.row + position - slice.position;
          const size_t at = (static_cast<size_t>(row) * heads + head) * dim;
          float* key = keys_.data() + at;
          if (!layer.k_norm.empty()) kernels_.rms_norm(key, layer.k_norm.data(), dim, model_->epsilon, key);
          turn(key, layer, row);
          slice.sequence->cache.write(index, head, position, key, values_.data() + at);
        }
      }
      from = to;
    }
  }
}

// Row t * heads + h of a tile holds head first_head + h of its token t: floats as [channel][row], codes as tiles of rows
// hold them, two lines a row.
void Session::fill_queries(const QueryTile& tile, const Layer& layer, float* line) {
  const int dim = model_->head_dim, width = kernels_.tile;
  const KvCache& keys = cache(tile);
  const CachedRows rows = query_codes(tile);
  float* floats = query_tiles_.as<float>() + tile.queries;
  for (int row = 0; row < tile.rows(); row++) {
    const int token = tile.row + row / tile.heads, head = tile.first_head + row % tile.heads;
    std::memcpy(line, queries_.data() + (static_cast<size_t>(token) * model_->heads + head) * dim, dim * sizeof(float));
    if (!layer.q_norm.empty()) kernels_.rms_norm(line, layer.q_norm.data(), dim, model_->epsilon, line);
    turn(line, layer, token);
    kernels_.scale(line, dim, model_->attention_scale);
    if (keys.transformed()) turn_head(kernels_, line, dim);
    if (on_matrix(keys))
      kernels_.attention->row(line, dim, row, reinterpret_cast<uint16_t*>(floats));
    else if (keys.coded())
      kernels_.cached_row(line, nullptr, dim, row, rows);
    else
      for (int k = 0; k < dim; k++) floats[static_cast<size_t>(k) * width + row] = line[k];
  }
}

CachedRows Session::query_codes(const QueryTile& tile) const {
  const int blocks = (model_->head_dim + kBlock - 1) / kBlock, most = kernels_.tile / digits();
  const float* begin = query_tiles_.as<float>() + tile.queries;
  const float* units = begin + static_cast<size_t>(kernels_.tile) * blocks * kBlock / sizeof(float);
  return {tile.rows(), digits(), reinterpret_cast<const int8_t*>(begin), units, units + static_cast<size_t>(most) * blocks};
}

int Session::visible_from(int row, const Layer& layer) const {
  return layer.window > 0 ? std::max(0, positions_[row] - layer.window + 1) : 0;
}

Session::Interval Session::spans(const QueryTile& tile, const Layer& layer) const {
  return {visible_from(tile.row, layer) / kAttentionSpan, positions_[tile.row + tile.tokens - 1] / kAttentionSpan + 1};
}

void Session::attend(int thread, const Layer& layer, int index) {
  const auto take = [&] { return next_item_.fetch_add(1, std::memory_order_relaxed); };
  const int count = static_cast<int>(tiles_.size());
  int item = 0, mine = take();
  AttentionItem before;                // attended when the one after it is known, which memory is asked for meanwhile
  for (int last = count; last > 0;) {  // tiles of the same tokens: their heads lie side by side in a span; the longest first
    const int first = tiles_of_row_[tiles_[last - 1].row].begin;
    const Interval seen = spans(tiles_[first], layer);
    const bool shared = tiles_[first].partials != kWhole;
    for (int span = shared ? seen.begin : seen.end - 1; span < seen.end; span++)
      for (int at = first; at < last; at++, item++) {
        if (item != mine) continue;
        scratch_[thread].ahead = part_of_span(tiles_[at], index, shared ? span : seen.begin);
        attend_item(thread, index, before);
        before = {at, span};
        mine = take();
      }
    last = first;
  }
  scratch_[thread].ahead = {};
  attend_item(thread, index, before);
}

void Session::attend_item(int thread, int index, AttentionItem item) {
  if (item.tile < 0) return;
  const QueryTile& tile = tiles_[item.tile];
  if (tile.partials == kWhole) return attend_whole(thread, index, item.tile);
  attend_span(thread, index, item.tile, item.span, partials_.data() + tile.partials + item.span * partials_size(tile));
}

MemoryRange Session::part_of_span(const QueryTile& tile, int index, int span) const {
  const int end = positions_[tile.row + tile.tokens - 1] + 1;
  return cache(tile).part(index, tile.kv_head, span, std::min(kAttentionSpan, end - span * kAttentionSpan));
}

void Session::attend_whole(int thread, int index, int at) {
  const QueryTile& tile = tiles_[at];
  const Layer& layer = model_->layers[index];
  const Interval seen = spans(tile, layer);
  float* partials = scratch_[thread].partials.data();
  const MemoryRange after = scratch_[thread].ahead;
  for (int span = seen.begin; span < seen.end; span++) {
    scratch_[thread].ahead = span + 1 < seen.end ? part_of_span(tile, index, span + 1) : after;
    attend_span(thread, index, at, span, partials + span * partials_size(tile));
  }
  for (int token = 0; token < tile.tokens; token++) {
    const size_t head = static_cast<size_t>(tile.row + token) * model_->heads + tile.first_head;
    merge(thread, tile, token, partials, layer, attended_.data() + head * model_->head_dim);
  }
}

// One row's heads side by side, merged only now where the spans were shared out.
const float* Session::attended(int thread, int row, const Layer& layer, float* line) {
  const int dim = model_->head_dim;
  for (int at = tiles_of_row_[row].begin; at < tiles_of_row_[row].end; at++) {
    const QueryTile& tile = tiles_[at];
    if (tile.partials == kWhole) return attended_.data() + static_cast<size_t>(row) * model_->heads * dim;
    merge(thread, tile, row - tile.row, partials_.data() + tile.partials, layer,
          line + static_cast<size_t>(tile.first_head) * dim);
  }
  return line;
}

// One token's heads, from the spans that the token sees, whatever its tile sees. Their weights are computed at once; one span
// needs none.
void Session::merge(int thread, const QueryTile& tile, int token, const float* partials, const Layer& layer, float* out) {
  const int dim = model_->head_dim, wide = wide_head(), row = tile.row + token;
  const Interval own{visible_from(row, layer) / kAttentionSpan, positions_[row] / kAttentionSpan + 1};
  const int count = own.end - own.begin;
  const auto partial = [&](int head, int span) {
    return partials + (own.begin + span) * partials_size(tile) + (token * tile.heads + head) * partial_stride();
  };
  std::vector<float>& weights = scratch_[thread].span_weights;
  if (count > 1) {
    weights.resize(static_cast<size_t>(round_up(tile.heads * count, kPanelRows)));
    for (int head = 0; head < tile.heads; head++) {
      float peak = -std::numeric_limits<float>::infinity();
      for (int span = 0; span < count; span++) peak = std::max(peak, partial(head, span)[wide]);
      for (int span = 0; span < count; span++) weights[head * count + span] = partial(head, span)[wide] - peak;
    }
    kernels_.exp_shifted(weights.data(), static_cast<int>(weights.size()), 0.0f);
  }
  for (int head = 0; head < tile.heads; head++, out += dim) {
    float total = 0.0f;
    if (count == 1) {
      std::memcpy(out, partial(head, 0), dim * sizeof(float));
      total = partial(head, 0)[wide + 1];
    } else {
      std::fill(out, out + dim, 0.0f);
      for (int span = 0; span < count; span++) {
        const float weight = weights[head * count + span];
        total += weight * partial(head, span)[wide + 1];
        kernels_.add_scaled(partial(head, span), dim, weight, out);
      }
    }
    kernels_.scale(out, dim, 1.0f / total);
    if (cache(tile).transformed()) turn_head(kernels_, out, dim);
  }
}

// `partial` takes partials_size(tile).
void Session::attend_span(int thread, int index, int at, int span, float* partial) {
  Scratch& scratch = scratch_[thread];
  const QueryTile& tile = tiles_[at];
  if (on_matrix(cache(tile))) return attend_on_matrix(scratch, index, tile, span, partial);
  const Layer& layer = model_->layers[index];
  const int count = std::min(kAttentionSpan, positions_[tile.row + tile.tokens - 1] + 1 - span * kAttentionSpan);
  // A third of what comes next is asked for beside the keys, a third beside the softmax, the rest beside the values.
  const size_t burst = scratch.ahead.bytes / 3 / (2 * tile.rows());
  score(scratch, index, at, span, {seen(tile, 0, span, layer).begin, count});
  for (int row = 0; row < tile.rows(); row++) {
    fetch(scratch.take_ahead(burst));
    const auto [low, high] = seen(tile, row, span, layer);
    float* x = scratch.scores.data() + static_cast<size_t>(row) * kAttentionSpan;
    float *peak = partial + static_cast<size_t>(row) * partial_stride() + wide_head(), *total = peak + 1;
    *peak = -std::numeric_limits<float>::infinity(), *total = 0.0f;
    if (low < high) {
      if (model_->attention_softcap > 0) kernels_.softcap(x + low, high - low, model_->attention_softcap);
      *peak = kernels_.maximum(x + low, high - low);
      fetch(scratch.take_ahead(burst));
      *total = kernels_.exp_shifted(x + low, high - low, *peak);
    }
    std::fill(x, x + low, 0.0f);
    std::fill(x + std::max(low, high), x + count, 0.0f);
  }
  weigh(scratch, index, at, span, count, partial);
}

// Positions of a span that a row of the tile sees, from the span's first on.
Session::Interval Session::seen(const QueryTile& tile, int row, int span, const Layer& layer) const {
  const int token = tile.row + row / tile.heads, base = span * kAttentionSpan;
  return {std::clamp(visible_from(token, layer) - base, 0, kAttentionSpan),
          std::clamp(positions_[token] + 1 - base, 0, kAttentionSpan)};
}

// A span's keys and values are turned once; then a few rows at a time, whose scores and weights stay in the nearest cache.
void Session::attend_on_matrix(Scratch& scratch, int index, const QueryTile& tile, int span, float* partial) {
  const MatrixAttention& unit = *kernels_.attention;
  const Layer& layer = model_->layers[index];
  const KvCache& cached = cache(tile);
  const int dim = model_->head_dim, wide = wide_head(), stride = partial_stride(), key_steps = matrix_steps(dim);
  const int begin = seen(tile, 0, span, layer).begin / kPanelRows, end = seen(tile, tile.rows() - 1, span, layer).end;
  const auto halves = [](const uint8_t* bytes) { return reinterpret_cast<const uint16_t*>(bytes); };
  const size_t key_stride = matrix_entries(kPanelRows, dim), value_stride = matrix_entries(kPanelRows, end);
  auto *keys = scratch.keys.as<uint16_t>(), *values = scratch.values.as<uint16_t>();
  // Beside the keys this span's values are asked for, beside the values the next span's keys.
  unit.turn(
      {halves(cached.keys(index, tile.kv_head, span) + cached.key_bytes(begin * kPanelRows)), cached.key_bytes(kPanelRows) / 2,
       dim, (end + kPanelRows - 1) / kPanelRows - begin, cached.values_part(index, tile.kv_head, span, end)},
      keys);
  unit.turn({halves(cached.values(index, tile.kv_head, span)),
             cached.value_panel_bytes() / 2,
             end,
             wide / kPanelRows,
             {scratch.take_ahead(cached.key_bytes(kAttentionSpan))}},
            values);
  float* scores = scratch.scores.data();
  auto* weights = scratch.weights.as<uint16_t>();
  unit.begin(tile.rows());
  for (int first = 0; first < tile.rows(); first += kMatrixTogether) {
    const int rows = std::min(kMatrixTogether, tile.rows() - first);
    const int low = seen(tile, first, span, layer).begin / kPanelRows, high = seen(tile, first + rows - 1, span, layer).end;
    if (high == 0) continue;  // a span behind these rows, which none of them asks for
    unit.matmul({keys + (low - begin) * key_stride, key_stride, (high + kPanelRows - 1) / kPanelRows - low},
                matrix_queries(tile) + matrix_entries(first, dim), rows, key_steps,
                {scores + low * kPanelRows, kAttentionSpan, false});
    SoftmaxRow softmax[kMatrixTogether];
    for (int row = 0; row < rows; row++) {
      const auto [from, to] = seen(tile, first + row, span, layer);
      softmax[row] = {from, to, 0.0f, 0.0f};
      float* x = scores + static_cast<size_t>(row) * kAttentionSpan;
      if (model_->attention_softcap > 0 && from < to) kernels_.softcap(x + from, to - from, model_->attention_softcap);
    }
    unit.softmax(scores, high, softmax, rows, weights);
    for (int row = 0; row < rows; row++) {
      float* sums = partial + static_cast<size_t>(first + row) * stride + wide;
      sums[0] = softmax[row].peak, sums[1] = softmax[row].total;
    }
    unit.matmul({values, value_stride, wide / kPanelRows}, weights, rows, matrix_steps(high),
                {partial + static_cast<size_t>(first) * stride, stride, false});
  }
  unit.end();
}

// Scores of the tile's queries with the keys at the given positions of a span: scores[row][position].
void Session::score(Scratch& scratch, int index, int at, int span, Interval positions) {
  float* scores = scratch.scores.data();
  const QueryTile& tile = tiles_[at];
  const KvCache& cached = cache(tile);
  const uint8_t* keys = cached.keys(index, tile.kv_head, span);
  const int first = positions.begin / kPanelRows * kPanelRows;
  const int panels = (positions.end - first + kPanelRows - 1) / kPanelRows;
  if (cached.coded()) {
    const CachedRows queries = query_codes(tile);
    kernels_.cached_panels(
        {keys + cached.key_bytes(first), cached.key_scales(index, tile.kv_head, span) + first, cached.key_bytes(kPanelRows),
         cached.bits(), (model_->head_dim + kBlock - 1) / kBlock, panels, scratch.take_ahead(scratch.ahead.bytes / 3)},
        queries, {scores + first, kAttentionSpan, false});
    return;
  }
  const DenseInput queries{query_tiles_.as<float>() + tile.queries, kernels_.tile, false};
  for (int position = first; position < positions.end; position += kPanelRows)
    kernels_.dense_panel(cached.dense_type(), keys + cached.key_bytes(position), model_->head_dim, queries, tile.rows(),
                         {scores + position, kAttentionSpan, false});
}

// The values of a span's first `count` positions, weighted by the scores: sums[row * partial_stride + channel].
void Session::weigh(Scratch& scratch, int index, int at, int span, int count, float* sums) {
  const QueryTile& tile = tiles_[at];
  const KvCache& cached = cache(tile);
  const uint8_t* values = cached.values(index, tile.kv_head, span);
  const int panels = wide_head() / kPanelRows;
  float* scores = scratch.scores.data();
  if (!cached.coded()) {
    for (int panel = 0; panel < panels; panel++)
      kernels_.dense_panel(cached.dense_type(), values + panel * cached.value_panel_bytes(), count, {scores, 1, true},
                           tile.rows(), {sums + panel * kPanelRows, partial_stride(), false});
    return;
  }
  const CachedRows weights{tile.rows(), digits(), scratch.weight_codes.data(), scratch.weight_units.data(),
                           scratch.weight_sums.data()};
  for (int row = 0; row < tile.rows(); row++)
    kernels_.cached_row(scores + static_cast<size_t>(row) * kAttentionSpan, cached.value_scales(index, tile.kv_head, span), count,
                        row, weights);
  kernels_.cached_panels(
      {values, nullptr, cached.value_panel_bytes(), cached.bits(), (count + kBlock - 1) / kBlock, panels, scratch.ahead}, weights,
      {sums, partial_stride(), false});
}

}  // namespace bitwright
