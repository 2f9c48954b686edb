#include "bitwright/thread_team.h"

#include <sched.h>

#include <algorithm>
#include <utility>

namespace bitwright {

namespace {

constexpr int kSpins = 500;  // some microseconds: with the cores shared, a spinning thread only delays the one it waits for

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns once `value` differs from `old`.
void wait_change(std::atomic<int>& value, int old) {
  for (int i = 0; i < kSpins; i++) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // namespace

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

ThreadTeam::ThreadTeam(int threads) : size_(std::max(1, threads)) {
  for (int i = 1; i < size_; i++) threads_.emplace_back([this, i] { loop(i); });
}

ThreadTeam::~ThreadTeam() {
  stopping_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::call(int thread) {
  try {
    (*work_)(thread);
  } catch (...) {
    if (!faulted_.exchange(true)) fault_ = std::current_exception();
  }
}

void ThreadTeam::loop(int thread) {
  for (int seen = 0;;) {
    wait_change(generation_, seen);
    seen = generation_.load(std::memory_order_acquire);
    if (stopping_) return;
    call(thread);
    finished_.fetch_add(1, std::memory_order_release);
    finished_.notify_one();
  }
}

void ThreadTeam::run(const std::function<void(int)>& work) {
  work_ = &work;
  faulted_ = false;
  finished_.store(0, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  call(0);
  for (int done; (done = finished_.load(std::memory_order_acquire)) != size_ - 1;) wait_change(finished_, done);
  if (faulted_) std::rethrow_exception(std::exchange(fault_, nullptr));
}

void ThreadTeam::barrier() {
  if (size_ == 1) return;
  const int epoch = epoch_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    return;
  }
  wait_change(epoch_, epoch);
}

}  // namespace bitwright
