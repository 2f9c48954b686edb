// The MLP of a layer that is a mixture of experts: models/architecture.py has the maths.
//
//   router's logits of all rows -> each row's experts and their shares -> rows by expert, in the order of the experts
//   for each expert with rows:  gate and up of its rows, down, and onto the stream by their shares
//
// A row's experts add to the stream in the order of their numbers whatever rows are beside it, so its result is the same. A
// single row is multiplied by all its experts' matrices at once, so that threads meet as often as in a dense layer.
#include <algorithm>
#include <cmath>

#include "products.h"

namespace bitwright {

void Session::run_experts(int thread, const Layer& layer, int count) {
  const int width = model_->hidden;
  const Share share(count, thread, team_.size());
  for (int row = share.begin; row < share.end; row++) {
    const size_t at = static_cast<size_t>(row) * width;
    kernels_.rms_norm(stream_.data() + at, layer.mlp_norm.data(), width, model_->epsilon, normed_.data() + at);
  }
  team_.barrier();
  multiply(thread, count, width, {{&layer.router, router_logits_.data(), model_->experts, false, nullptr}},
           [&](int row, float*) { return static_cast<const float*>(normed_.data() + static_cast<size_t>(row) * width); });
  team_.barrier();
  for (int row = share.begin; row < share.end; row++) choose_experts(row);
  team_.barrier();
  if (thread == 0) sort_by_expert(count);
  team_.barrier();
  if (count == 1) return run_chosen(thread, layer);
  for (int expert = 0; expert < model_->experts; expert++) {
    const int begin = first_routed_[expert], rows = first_routed_[expert + 1] - begin;
    if (rows > 0) run_expert(thread, layer.experts[expert], std::span(routed_).subspan(begin, rows));
  }
}

// The likeliest experts of a row, the first of those that are alike, and their shares of what they add.
void Session::choose_experts(int row) {
  const int experts = model_->experts, each = model_->experts_per_token;
  float* likely = router_logits_.data() + static_cast<size_t>(row) * experts;
  const float largest = *std::max_element(likely, likely + experts);
  float sum = 0.0f, of_chosen = 0.0f;
  for (int expert = 0; expert < experts; expert++) sum += likely[expert] = std::exp(likely[expert] - largest);
  Routed* chosen = chosen_.data() + static_cast<size_t>(row) * each;
  for (int i = 0; i < each; i++) {
    int best = -1;
    for (int expert = 0; expert < experts; expert++) {
      const auto taken = [&](const Routed& other) { return other.expert == expert; };
      if (std::any_of(chosen, chosen + i, taken)) continue;
      if (best < 0 || likely[expert] > likely[best]) best = expert;  // of NaN, too, each is taken once
    }
    chosen[i] = {row, best, likely[best] / sum};
    of_chosen += chosen[i].share;
  }
  for (int i = 0; model_->normalized_routing && i < each; i++) chosen[i].share /= of_chosen;
}

void Session::sort_by_expert(int count) {
  const int all = count * model_->experts_per_token;
  std::fill(first_routed_.begin(), first_routed_.end(), 0);
  for (int i = 0; i < all; i++) first_routed_[chosen_[i].expert + 1]++;
  for (int expert = 0; expert < model_->experts; expert++) first_routed_[expert + 1] += first_routed_[expert];
  next_routed_.assign(first_routed_.begin(), first_routed_.end() - 1);
  for (int i = 0; i < all; i++) routed_[next_routed_[chosen_[i].expert]++] = chosen_[i];
}

void Session::run_expert(int thread, const Expert& expert, std::span<const Routed> rows) {
  const int count = static_cast<int>(rows.size()), width = model_->hidden, inner = model_->intermediate;
  const auto normed = [&](int row, float*) {
    return static_cast<const float*>(normed_.data() + static_cast<size_t>(rows[row].row) * width);
  };
  multiply_opening(thread, count, expert.gate, expert.up, normed);
  team_.barrier();
  lap(thread, kGateUp);
  multiply(thread, count, inner, {{&expert.down, block_.data(), width, false, nullptr}},
           [&](int row, float* line) { return opened(row, count <= kFewRows, line); });
  team_.barrier();
  const Share share(count, thread, team_.size());
  for (int i = share.begin; i < share.end; i++) {
    float* to = stream_.data() + static_cast<size_t>(rows[i].row) * width;
    const float* from = block_.data() + static_cast<size_t>(i) * width;
    for (int k = 0; k < width; k++) to[k] += rows[i].share * from[k];
  }
  team_.barrier();
  lap(thread, kDown);
}

// The same for the only row there is, all its experts at a time.
void Session::run_chosen(int thread, const Layer& layer) {
  const int each = model_->experts_per_token, width = model_->hidden, inner = model_->intermediate;
  std::vector<Product> products;
  for (int i = 0; i < each; i++) {
    const Expert& expert = layer.experts[routed_[i].expert];
    products.push_back({&expert.gate, gate_.data() + static_cast<size_t>(i) * gate_stride(), gate_stride(), false, nullptr});
    products.push_back({&expert.up, up_.data() + static_cast<size_t>(i) * inner, inner, false, nullptr});
  }
  multiply(thread, 1, width, products, [&](int, float*) { return static_cast<const float*>(normed_.data()); });
  team_.barrier();
  lap(thread, kGateUp);
  for (int i = 0; i < each; i++)
    multiply(thread, 1, inner,
             {{&layer.experts[routed_[i].expert].down, block_.data() + static_cast<size_t>(i) * width, width, false, nullptr}},
             [&](int, float* line) { return opened(i, true, line); });
  team_.barrier();
  const Share share(width, thread, team_.size());
  for (int i = 0; i < each; i++)
    for (int k = share.begin; k < share.end; k++)
      stream_.data()[k] += routed_[i].share * block_.data()[static_cast<size_t>(i) * width + k];
  team_.barrier();
  lap(thread, kDown);
}

}  // namespace bitwright
