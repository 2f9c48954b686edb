// What this machine gives: the ceilings that the engine's speed is held against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bitwright {

// A way to read memory. `sum` adds up all words, so that every way reads every byte, once.
struct Reading {
  int streams;  // equal parts that are read in step
  int ahead;    // bytes ahead of itself at which a stream asks for memory; 0 where only the hardware looks ahead
  uint64_t (*sum)(const uint64_t* words, size_t count);
};

// All ways there are, the plain loop first.
std::span<const Reading> readings();

// Bytes a second that `threads` threads read from `bytes` of huge-page memory in each of those ways, taken by turns for
// about `seconds`: the best pass of each.
std::vector<double> read_bandwidths(size_t bytes, int threads, double seconds);

// The best of them all.
double read_bandwidth(size_t bytes, int threads, double seconds);

enum class MatrixType { int8, bf16 };

// The best dot product of that type that the instruction set in use (`kernels()`) allows, or null where none is known here.
const char* matrix_instruction(MatrixType type);

// Operations a second, two for each multiply-add, of `threads` threads that do nothing but that dot product on registers:
// the best of several passes, or 0 without such an instruction.
double matrix_peak(MatrixType type, int threads, double seconds);

}  // namespace bitwright
