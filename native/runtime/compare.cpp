#include "bitwright/compare.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace bitwright {

namespace {

constexpr int kRows = 48;  // rows whose logits are held at once

struct Distribution {
  const float* logits;
  float log_total, peak;
  Distribution(const float* logits_, int n) : logits(logits_) {
    peak = kernels().maximum(logits, n);
    log_total = peak + static_cast<float>(std::log(kernels().sum_exp(logits, n, peak)));
  }
  float nll(int token) const { return log_total - logits[token]; }
  const float* likeliest(int n) const { return std::find(logits, logits + n, peak); }
};

Comparison compare_row(const float* reference, const float* model, int n, int target) {
  const Distribution q(model, n);
  const auto q_token = q.likeliest(n) - model;
  if (reference == nullptr) return {0.0f, q.nll(target), 0.0f, std::exp(q.peak - q.log_total), false, q_token == target, false};
  const Distribution p(reference, n);
  const double gap = kernels().expected_gap(reference, model, n, p.log_total);
  const auto p_token = p.likeliest(n) - reference;
  const float kl = static_cast<float>(std::max(0.0, gap - p.log_total + q.log_total));
  return {
      kl, q.nll(target), p.nll(target), std::exp(p.peak - p.log_total), p_token == q_token, q_token == target, p_token == target};
}

}  // namespace

void compare(Session* reference, const float* reference_hidden, Session& session, const float* hidden, int rows,
             const int32_t* targets, Comparison* out) {
  const int n = session.model().vocabulary;
  std::vector<float> ours(static_cast<size_t>(kRows) * n), theirs(reference == nullptr ? 0 : ours.size());
  for (int done = 0; done < rows; done += kRows) {
    const int now = std::min(kRows, rows - done);
    session.project(hidden + static_cast<size_t>(done) * session.model().hidden, now, ours.data());
    if (reference != nullptr)
      reference->project(reference_hidden + static_cast<size_t>(done) * reference->model().hidden, now, theirs.data());
    session.team().run([&](int thread) {
      const Share share(now, thread, session.team().size());
      for (int row = share.begin; row < share.end; row++) {
        const size_t at = static_cast<size_t>(row) * n;
        out[done + row] =
            compare_row(reference == nullptr ? nullptr : theirs.data() + at, ours.data() + at, n, targets[done + row]);
      }
    });
  }
}

}  // namespace bitwright
