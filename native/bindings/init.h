#pragma once

#include <nanobind/nanobind.h>

void init_quantization(nanobind::module_& m);
void init_rounding(nanobind::module_& m);
void init_engine(nanobind::module_& m);
