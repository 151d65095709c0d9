# `make` says what there is to make. Everything is fetched into and built in this folder; `make clean` takes it away.

CARGO ?= cargo
PYTHON ?= python3
TARGET := $(or $(CARGO_TARGET_DIR),target)
GENOMILL := $(TARGET)/release/genomill
WORK := work/yeast

export PYTHON TARGET

.DEFAULT_GOAL := help
.PHONY: help setup build demo test oracles lint bench gpu-bench fuzz schemas clean

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Check the compilers and fetch libtorch (132 MB; an existing LIBTORCH is used instead)
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust 1.91 or newer (rustup)" >&2; exit 1; }
	@command -v c++ >/dev/null || { echo "a C++ compiler is missing (Debian, Ubuntu: apt install g++)" >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: fetching libtorch needs Python and pip" >&2; exit 1; }
	@$(PYTHON) tools/libtorch.py

build: setup ## Build target/release/genomill, trainer included
	$(CARGO) build --release --features train

demo: build ## From the yeast genome to shards, a trained model and a report
	$(GENOMILL) run workflows/yeast.yaml
	@echo
	@echo "The report:   $(WORK)/report/report.html (open it in a browser)"
	@echo "The workflow: workflows/yeast.yaml (copy it and put your genomes in)"
	@echo "Run it again: $(GENOMILL) run workflows/yeast.yaml (reuses what is done)"
	@echo "Look inside:  $(GENOMILL) shards head $(WORK)/shards"
	@echo "All it can:   $(GENOMILL) --help"

test: setup .venv/ready ## Run every test (Rust, the lambda workflow, Python)
	@tools/test

.venv/ready: python/requirements-test.txt tools/venv
	tools/venv .venv python/requirements-test.txt

oracles: build .oracles/ready ## Compute the golden models again with transformers, and open exports with it (fetches torch for Python, some GB)
	GENOMILL=$(abspath $(GENOMILL)) .oracles/bin/python tests/oracles/golden_models.py --results
	GENOMILL=$(abspath $(GENOMILL)) .oracles/bin/python -m pytest -q -ra -p no:cacheprovider tests/oracles

.oracles/ready: tests/oracles/requirements.txt
	$(PYTHON) -m venv .oracles
	.oracles/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

lint: ## Check the formatting and run clippy, with and without the trainer (needs no libtorch)
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --all-targets --features train-check -- -D warnings

bench: setup ## Run the benchmarks
	$(CARGO) bench --features train

gpu-bench: build ## Train on this machine's GPU beside PyTorch (PYTHON needs torch 2.11 with CUDA, whose libtorch both use)
	GENOMILL=$(abspath $(GENOMILL)) $(PYTHON) benches/gpu.py

fuzz: ## Fuzz the readers and the encoder, SECONDS_EACH=60 (needs `cargo install cargo-fuzz`)
	@$(CARGO) fuzz --version >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz" >&2; exit 1; }
	for target in $$($(CARGO) fuzz list); do \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run -s none --target-dir $(TARGET)/fuzz $$target -- -max_total_time=$${SECONDS_EACH:-60} -max_len=4096 || exit 1; \
	done

schemas: ## Write schemas/*.schema.json from the Rust types
	for of in workflow manifest shard tasks profile; do \
		$(CARGO) run --quiet -- schema $$of > schemas/$$of.schema.json.new && \
		mv schemas/$$of.schema.json.new schemas/$$of.schema.json || exit 1; \
	done

clean: ## Remove what was built; keeps libtorch (third_party/) and the results (work/)
	$(CARGO) clean
	rm -rf .venv .oracles
