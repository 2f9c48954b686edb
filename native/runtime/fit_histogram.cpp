#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <mutex>
#include <vector>

#include "bitwright/histogram.h"
#include "parallel.h"

namespace bitwright {

namespace {

constexpr size_t kChunk = 256;
constexpr size_t kTables = 4;         // neighbours that fall in one bin would wait for each other's count
constexpr size_t kValuesAThread = 8;  // as many times what in_parallel shares out: a value takes a nanosecond
constexpr int32_t kMagnitude = 0x7FFFFFFF;

// The bin of each value: floor(x * scale) from the middle on, ends clipped. Returns the largest |x|, as bits.
int32_t find_places(const float* x, size_t n, float scale, float middle, int32_t* places) {
  int32_t largest = 0;
  for (size_t i = 0; i < n; i++) {
    largest = std::max(largest, std::bit_cast<int32_t>(x[i]) & kMagnitude);
    float scaled = x[i] * scale;  // exact: a power of two
    scaled = scaled > -middle ? scaled : -middle;
    scaled = scaled < middle - 1 ? scaled : middle - 1;
    const int32_t toward_zero = static_cast<int32_t>(scaled);
    places[i] = toward_zero - (scaled < static_cast<float>(toward_zero)) + static_cast<int32_t>(middle);
  }
  return largest;
}

}  // namespace

float count_in_bins(const float* x, size_t n, int exponent, int bins, int64_t* counts) {
  const float middle = static_cast<float>(bins) / 2, scale = std::ldexp(middle, -exponent);
  std::mutex adding;
  int32_t largest = 0;
  in_parallel(n, n / kValuesAThread, [&](size_t begin, size_t end) {
    std::vector<uint32_t> tables(kTables * bins);
    std::array<int32_t, kChunk> places;
    int32_t most = 0;
    for (size_t i = begin; i < end; i += kChunk) {
      const size_t count = std::min(kChunk, end - i);
      most = std::max(most, find_places(x + i, count, scale, middle, places.data()));
      std::fill(places.begin() + count, places.end(), 0);
      for (size_t j = 0; j < kChunk; j += kTables)
        for (size_t table = 0; table < kTables; table++) tables[table * bins + places[j + table]]++;
      tables[0] -= static_cast<uint32_t>(kChunk - count);  // those that are none; sums over the tables are right
    }
    const std::lock_guard<std::mutex> lock(adding);
    largest = std::max(largest, most);
    for (int bin = 0; bin < bins; bin++) {
      uint32_t sum = 0;
      for (size_t table = 0; table < kTables; table++) sum += tables[table * bins + bin];
      counts[bin] += sum;
    }
  });
  return std::bit_cast<float>(largest);
}

}  // namespace bitwright
