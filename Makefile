# Every task of the project, each a target; `make help` lists them. The interpreter is PYTHON, for example
# `make test PYTHON=/path/to/python3.14`; each Python version has an environment of its own, .venv/<version>.
# A wheel is built again only when a source of it changed.

PYTHON ?= python3
PYTEST_ARGUMENTS ?=
CONFORMANCE_ARGUMENTS ?= --jobs 2
BENCH_ARGUMENTS ?=

# 3.13, or 3.13t for the free-threaded build.
version := $(shell $(PYTHON) -c 'import sys; print("%d.%d%s" % (sys.version_info[0], sys.version_info[1], getattr(sys, "abiflags", "")))' 2>/dev/null)
venv := .venv/$(version)
python := $(venv)/bin/python
wheels := target/wheels/$(version)

# Another Python is another build of the whole tree, so each version keeps its own build folder.
build_folder := target/python-$(version)
sources := $(shell find crates python -type f \( -name '*.rs' -o -name '*.c' -o -name '*.toml' -o -name '*.py' -o -name '*.pyi' -o -name 'py.typed' \)) \
	Cargo.toml Cargo.lock pyproject.toml README.md LICENSE

.DEFAULT_GOAL := help
.PHONY: help demo test test-rust test-python conformance bench bench-full bench-page guard guard-update layers lint typing build clean

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  With PYTHON=/path/to/python3.x for another interpreter than python3."

demo: $(venv)/.installed-examples ## build, install, and run the examples on ioxide beside asyncio
	@$(python) ci/demo.py

test: layers test-rust test-python conformance ## the whole test suite
	@echo "make test: everything passed on Python $(version)"

test-rust: ## tests of the crates that know no Python
	cargo test --locked -p ioxide-reactor -p ioxide-io

test-python: $(venv)/.installed-test ## tests/: each on asyncio and on ioxide, and the programs of others
	$(python) -m pytest $(PYTEST_ARGUMENTS)

conformance: $(venv)/.installed-test ## the interpreter's own test_asyncio, on ioxide's loop and with its names
	$(python) -m pytest --quiet tests/cpython/test_harness.py
	$(python) tests/cpython/run.py --loop ioxide $(CONFORMANCE_ARGUMENTS)
	$(python) tests/cpython/run.py --loop ioxide --mode names $(CONFORMANCE_ARGUMENTS)

# Results, tables and plots of a run; with ONLY=streams,http tables of these only.
bench_results := target/benchmarks/$(version)
bench_command = @mkdir -p $(bench_results) && $(python) benches/bench.py $(if $(ONLY),--only $(ONLY),\
	--json $(bench_results)/$@.json --page $(bench_results)/$@) $(BENCH_ARGUMENTS)

bench: $(venv)/.installed-bench ## speed beside other loops, some minutes; ONLY=streams for one claim; see benches/
	$(bench_command) --short

bench-full: $(venv)/.installed-bench ## every workload, an hour; goes on where it was interrupted
	$(bench_command)

bench-page: $(venv)/.made ## docs/benchmarks.md and README's figures from the last bench, or RESULTS=file
	$(python) benches/pages.py $(or $(RESULTS),$(bench_results)/bench.json)

guard: $(venv)/.installed ## instructions per operation against benches/instructions.json
	$(python) benches/instructions.py

guard-update: $(venv)/.installed ## accept the instructions per operation of now
	$(python) benches/instructions.py --update

layers: ## the arrows of ARCHITECTURE.md and the house rules
	@$(PYTHON) ci/layers.py

lint: $(venv)/.installed-lint ## formatting and lints, Rust and Python
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(python)) cargo clippy --locked --workspace --all-targets -- -D warnings
	$(python) -m ruff check python tests examples ci benches

typing: $(venv)/.installed-lint ## types of the package, and its stubs against the built module
	$(python) -m mypy
	$(python) -m mypy.stubtest ioxide --allowlist tests/typing/stubtest-allowlist.txt

build: $(venv)/.installed ## build the release wheel and install it into .venv/<version>

clean: ## remove what was built: target/, .venv/
	rm -rf target .venv

$(venv)/.made: ci/make_venv.py
	@test -n "$(version)" || { echo "$(PYTHON) cannot be run: install Python 3.11 or later, or name one: make PYTHON=/path/to/python3.x" >&2; exit 1; }
	$(PYTHON) ci/make_venv.py $(venv)
	$(python) -m pip install --quiet 'maturin>=1.9,<2'
	@touch $@

$(wheels)/.built: $(venv)/.made $(sources)
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust, see https://rustup.rs" >&2; exit 1; }
	@rm -rf $(wheels)
	$(venv)/bin/maturin build --release --locked --interpreter $(abspath $(python)) --target-dir $(build_folder) --out $(wheels)
	@touch $@

$(venv)/.installed: $(wheels)/.built
	$(python) -m pip install --quiet --force-reinstall --no-deps $(wheels)/*.whl
	@touch $@

# What the tests, examples, benchmarks and lints import, as pyproject.toml lists it.
$(venv)/.installed-%: $(venv)/.installed
	$(python) -m pip install --quiet "$$(echo $(wheels)/*.whl)[$*]"
	@touch $@
