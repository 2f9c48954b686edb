#include <nanobind/nanobind.h>

#include "init.h"

NB_MODULE(_native, m) {
  m.doc() = "Bitwright's C++ half: quantization kernels and the engine.";
  init_quantization(m);
  init_rounding(m);
  init_engine(m);
}
