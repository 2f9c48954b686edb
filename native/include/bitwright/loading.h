// Repacks a model's matrices on threads of its own, while the caller reads a tokenizer or a prompt.
#pragma once

#include <atomic>
#include <thread>
#include <variant>
#include <vector>

#include "bitwright/matrix.h"

namespace bitwright {

class Loading {
 public:
  ~Loading() { wait(); }
  // Lays the matrix out at once; its panels come after `begin`. What the source points to, and the matrix itself, must stay
  // where they are until `wait` returns.
  void add(Matrix& matrix, const MatrixSource& source);
  // Starts the work on all cores but one, which is the caller's.
  void begin();
  // Takes part in what is left, and returns when all is done.
  void wait();

 private:
  struct Job {
    Matrix* matrix;
    MatrixSource source;
    int begin, end;  // panels
  };
  void work();

  std::vector<Job> jobs_;
  std::atomic<size_t> next_{0};
  std::vector<std::thread> threads_;
};

}  // namespace bitwright
