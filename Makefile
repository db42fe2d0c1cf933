# Every target needs one virtual environment, which the first one to run makes.
#   make env PYTHON=python3.12      another Python
#   make env PIP_FLAGS=...          options of pip install, such as an index of CPU-only torch wheels
#   make test ARGS="-k ops -x"      options of pytest
#   make test JOBS=1                in how many processes, by default one for each core
#   make fuzz FUZZ_SECONDS=600           how long

PYTHON ?= python3
PIP_FLAGS ?=
ARGS ?=
JOBS ?= auto
FUZZ_SECONDS ?= 60
ifeq ($(origin CXX),default)
CXX := c++
endif
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install $(PIP_FLAGS) -c constraints.txt

.PHONY: env demo test fuzz bench lint clean

env: .venv/extension

demo: env
	$(BIN)/pgest run g2p --preset demo $(ARGS)

test: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

# The CPU kernels and the metrics know no torch, so they run alone under sanitizers. No clones: the loader would pick
# them before the sanitizers are there. One object for each file, so that `make -j` compiles several at once.
FUZZED_TEXT := $(addprefix csrc/text/,bleu.cpp chrf.cpp overlap.cpp) # the rest is for Python
FUZZED := $(patsubst %.cpp,build/sanitized/%.o,$(wildcard tests/fuzz/*.cpp csrc/cpu/*.cpp) $(FUZZED_TEXT))
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -pthread
build/sanitized/%.o: %.cpp $(shell find csrc/cpu csrc/kernels csrc/text tests/fuzz -name '*.h') $(wildcard csrc/*.h)
	@mkdir -p $(@D)
	$(CXX) -std=c++20 -O1 -g -march=native -DPGEST_NO_CLONES -fopenmp-simd -fno-math-errno \
	  -fno-trapping-math -ffp-contract=fast -Wall -Wextra $(SANITIZE) -c $< -o $@
build/fuzz: $(FUZZED)
	$(CXX) $(SANITIZE) $^ -o $@

fuzz: build/fuzz
	build/fuzz $(FUZZ_SECONDS)

bench: env
	$(BIN)/python -m pytest benchmarks --benchmark-only $(ARGS)
	$(BIN)/python -m benchmarks.ops
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/python -m benchmarks.linear
	$(BIN)/python -m benchmarks.relaxed
	$(BIN)/python -m benchmarks.bits
	$(BIN)/python -m benchmarks.kl
	$(BIN)/python -m benchmarks.steps
	$(BIN)/python -m benchmarks.estimators
	$(BIN)/python -m benchmarks.estimator_speed

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

clean:
	rm -rf .venv build dist *.egg-info pgest/*.so .benchmarks .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first: the build needs the one that will load the extension, and an isolated build
# would download a second one. Two stamps, so that a change in C++ only compiles.
.venv/packages: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'pgest needs Python 3.10 or later; name one with: make PYTHON=python3.12' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) torch numpy setuptools wheel ninja pybind11
	PGEST_BUILD=0 $(PIP) --no-build-isolation --editable '.[text,tasks,bench,examples,dev]'
	@touch $@

.venv/extension: .venv/packages setup.py $(shell find csrc -type f)
	@command -v $(firstword $(CXX)) >/dev/null || \
	  { echo 'pgest is compiled with $(CXX), which is not here: install it or set CXX' >&2; exit 1; }
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@
