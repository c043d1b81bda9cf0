# `make demo` and `make test` need Python >= 3.11 and a C compiler; all else goes into .venv.

VENV := .venv
BIN := $(VENV)/bin
DATA ?= ./data
JOBS ?= 2

PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
EXTRA = $(BIN)/python -c 'import sys, tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")'
SOURCES := pyproject.toml setup.py $(shell find ext vecstore/ext -name '*.pyx' -o -name '*.pxd' -o -name '*.h')

BUILT := $(VENV)/.built
DEV := $(VENV)/.dev
PEERS := $(VENV)/.bench
AUDIT := $(VENV)/.audit
RELEASE := $(VENV)/.release

MINUTES ?= 30
FUZZED := $(VENV)/.fuzz
SEED ?= 1000

.PHONY: help demo serve test soak fuzz neon avx512 eval bench bench-small docs build \
	audit audit-offline wheels clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo    build, load the sample, search it over HTTP, and stop'
	@echo 'make serve   keep a server up on $(DATA) (DATA=... for another store)'
	@echo 'make test    ruff, mypy, and the tests with coverage (JOBS=$(JOBS) processes)'
	@echo 'make soak    simulate one seed after another for MINUTES=$(MINUTES), from SEED=$(SEED) on'
	@echo 'make fuzz    fuzz all that reads bytes for MINUTES=$(MINUTES), under sanitizers (docs/fuzzing.md)'
	@echo 'make neon    the NEON kernels against the scalar ones, under qemu (make test does it where it can)'
	@echo 'make avx512  the AVX-512 kernels against the scalar ones, on any x86-64, in Bochs: some minutes'
	@echo 'make eval    recall on the benchmark sets'
	@echo 'make bench   every figure of docs/benchmarks.md, beside other engines (SMALL=1: under 5 minutes)'
	@echo 'make docs    the documentation site, into build/docs'
	@echo 'make build   build the extension modules into vecstore/ext'
	@echo 'make wheels  what is published, into dist: built, audited, installed and tried (CPython 3.11)'
	@echo 'make audit-offline  bandit, licences, secrets'
	@echo 'make audit   the same, and known vulnerabilities: needs a network'
	@echo 'make clean   remove what was built, and .venv'

demo: $(BUILT)
	@$(BIN)/vecstore demo

serve: $(BUILT)
	@echo 'Serving $(DATA); Ctrl-C stops'
	@$(BIN)/vecstore serve $(DATA)

test: $(DEV)
	@echo 'ruff'
	@$(BIN)/ruff check --quiet .
	@echo 'mypy --strict'
	@$(BIN)/mypy --strict vecstore
	@echo 'pytest, the simulation: tracing coverage would make it three times as slow'
	@$(BIN)/python -m pytest -n $(JOBS) tests/simulation
	@echo 'pytest, all else: coverage of vecstore at least 90 %'
	@$(BIN)/python -m pytest -n $(JOBS) --ignore=tests/simulation --cov=vecstore --cov-report=term:skip-covered --cov-fail-under=90

soak: $(DEV)
	@$(BIN)/python -m tests.simulation --seed $(SEED) --minutes $(MINUTES)

fuzz: $(FUZZED)
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

neon: $(DEV)
	@command -v aarch64-linux-gnu-gcc >/dev/null 2>&1 && \
		command -v qemu-aarch64 >/dev/null 2>&1 || \
		{ echo 'make neon needs a cross compiler and qemu: apt-get install gcc-aarch64-linux-gnu qemu-user'; exit 1; }
	@$(BIN)/python -m pytest tests/ext/test_neon.py

avx512: $(DEV)
	@command -v bochs-bin >/dev/null 2>&1 && command -v grub-mkrescue >/dev/null 2>&1 || \
		{ echo 'make avx512 needs an emulator, what boots it, and a Linux in /boot: apt-get install' \
			'bochs bochsbios vgabios bochs-term grub-pc-bin xorriso mtools cpio linux-image-cloud-amd64'; exit 1; }
	@$(BIN)/python -m tests.ext.bochs

eval: $(PEERS)
	@$(BIN)/python -m bench.eval

bench: $(PEERS)
	@$(BIN)/python -m bench.rows $(if $(SMALL),--small) $(BENCH)

bench-small:
	@$(MAKE) --no-print-directory bench SMALL=1

docs: $(DEV)
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo 'build/docs/index.html'

build: $(BUILT)

audit-offline: $(DEV) $(AUDIT)
	@BIN=$(VENV)/audit/bin PYTHON=$(BIN)/python .ci/audit

audit: audit-offline
	@BIN=$(VENV)/audit/bin PYTHON=$(BIN)/python .ci/audit vulnerabilities

wheels: $(RELEASE)
	@$(VENV)/release/bin/python .ci/wheels.py
	@$(VENV)/release/bin/python .ci/try_wheel.py dist/*_x86_64.whl dist/vecstore.cdx.json

clean:
	rm -rf $(VENV) build dist *.egg-info htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f vecstore/ext/*.so ext/*.c ext/*.html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is as new as what it was made from; .venv itself is made by the first of them.

$(BUILT): $(SOURCES) .ci/venv
	@.ci/venv $(VENV)
	@echo 'Building vecstore (a minute or two the first time)'
	@rm -f vecstore/ext/*.cpython-*.so  # of before the stable ABI: they would be found first
	@$(PIP) -e .
	@touch $@

$(DEV): $(BUILT) pyproject.toml
	@echo 'Installing what the tests need'
	@$(EXTRA) dev | $(PIP) -r /dev/stdin
	@touch $@

$(FUZZED): $(DEV)
	@echo 'Installing what fuzzing needs'
	@$(EXTRA) fuzz | $(PIP) -r /dev/stdin
	@touch $@

$(PEERS): $(BUILT) pyproject.toml
	@echo 'Installing what the benchmarks need'
	@$(EXTRA) bench | $(PIP) -r /dev/stdin
	@touch $@

# Tools that the package is not to meet have environments of their own.

$(AUDIT): $(BUILT) .ci/audit.txt
	@$(BIN)/python -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install -q --disable-pip-version-check -r .ci/audit.txt
	@touch $@

$(RELEASE): .ci/venv .ci/release.txt
	@.ci/venv $(VENV)
	@$(BIN)/python -m venv $(VENV)/release
	@$(VENV)/release/bin/python -m pip install -q --disable-pip-version-check -r .ci/release.txt
	@touch $@
