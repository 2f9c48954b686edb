// A fixed team of threads that run one function together, once for each thread, and meet at barriers inside it.
//
// Waiting spins for some microseconds and then sleeps on a futex: a token step has a barrier every few microseconds, but
// an idle team must not burn cores.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace bitwright {

// Cores this process may run on.
int available_cores();
// Threads that decode fastest here: 1 to the available cores, tried for some milliseconds on work like a token's; measured
// once in a process. Where cores are shared with other programs, fewer may be faster than all.
int fastest_threads();

struct TeamTime {
  int threads;
  double seconds;
};
// Teams of 1 to `most` threads, in rising numbers up to `most` itself, and the best of their times for that work.
std::vector<TeamTime> time_teams(int most);
// Threads of the smallest team that is about as fast as the best; the teams are in rising numbers.
int fewest_fast(const std::vector<TeamTime>& teams);

class ThreadTeam {
 public:
  explicit ThreadTeam(int threads);  // at least 1; the calling thread of `run` is thread 0
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return size_; }
  // Calls work(thread) on every thread and returns when all have. An exception on any thread is rethrown here; work
  // that uses barriers must not throw.
  void run(const std::function<void(int)>& work);
  // To be called by all threads inside `run`.
  void barrier();

 private:
  void loop(int thread);
  void call(int thread);

  int size_;
  std::vector<std::thread> threads_;
  const std::function<void(int)>* work_ = nullptr;
  std::exception_ptr fault_;
  std::atomic<bool> stopping_{false}, faulted_{false};
  alignas(64) std::atomic<int> generation_{0};
  alignas(64) std::atomic<int> finished_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> epoch_{0};
};

// [begin, end) of `count` items for one of `parts`, as even as whole items allow.
struct Share {
  int begin, end;
  Share(int count, int part, int parts)
      : begin(static_cast<int>(static_cast<long long>(count) * part / parts)),
        end(static_cast<int>(static_cast<long long>(count) * (part + 1) / parts)) {}
  bool has(int item) const { return begin <= item && item < end; }
};

}  // namespace bitwright
