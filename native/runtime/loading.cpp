#include "bitwright/loading.h"

#include <algorithm>

#include "bitwright/thread_team.h"

namespace bitwright {

namespace {

constexpr int kPanelsTogether = 32;

}  // namespace

void Loading::add(Matrix& matrix, const MatrixSource& source) {
  matrix = Matrix::laid_out(source);
  for (int panel = 0; panel < matrix.panels(); panel += kPanelsTogether)
    jobs_.push_back({&matrix, source, panel, std::min(matrix.panels(), panel + kPanelsTogether)});
}

void Loading::begin() {
  for (int i = 0; i < std::max(1, available_cores() - 1); i++) threads_.emplace_back([this] { work(); });
}

void Loading::work() {
  for (size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < jobs_.size();)
    jobs_[i].matrix->fill(jobs_[i].source, jobs_[i].begin, jobs_[i].end);
}

void Loading::wait() {
  work();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace bitwright
