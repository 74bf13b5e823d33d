# Everything a clone needs: `make help` lists the targets. Python 3.11 or later is found by itself; PYTHON=... chooses one.

VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard protos/agent_orchestration/v1/*.proto)
LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-annotate --no-header $(LOCK_ARGS)

# uv does not read pip's variables: an index that is set for pip alone serves both.
ifeq ($(UV_DEFAULT_INDEX)$(UV_INDEX_URL),)
ifneq ($(PIP_INDEX_URL),)
export UV_DEFAULT_INDEX := $(value PIP_INDEX_URL)
endif
endif

.PHONY: help install demo test lint format gen stubs-check contract-baseline lock wheel bench bench-quick bench-peers soak fuzz clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/dev.stamp  ## the development environment, in .venv

demo: $(VENV)/runtime.stamp  ## start everything, run real work, show it live
	@$(BIN)/python examples/demo.py

# Many tests wait for leases and time-outs: three at a time keep two cores busy.
test: $(VENV)/dev.stamp lint  ## every check and every test
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/dev.stamp stubs-check  ## style, types, import rules, contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@PYTHONPATH=sdk/python:server:gateway:. $(BIN)/lint-imports --no-logo
	@$(BIN)/buf lint protos
	@$(BIN)/buf format --diff --exit-code protos
	@$(BIN)/buf breaking protos --against protos/baseline.binpb

format: $(VENV)/dev.stamp  ## lay out all sources
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format . ; $(BIN)/buf format --write protos

gen: $(VENV)/dev.stamp  ## the stubs, from the protos
	@$(BIN)/python protos/generate.py

stubs-check: $(VENV)/dev.stamp  ## whether the committed stubs are current
	@$(BIN)/python protos/generate.py --check

contract-baseline: $(VENV)/dev.stamp  ## make today's protos the contract that later ones may not break
	@$(BIN)/buf build protos --exclude-source-info -o protos/baseline.binpb

lock: $(VENV)/dev.stamp  ## the requirement files, from pyproject.toml; LOCK_ARGS=--upgrade for the newest
	@$(LOCK) requirements/bootstrap.in -o requirements/bootstrap.txt
	@$(LOCK) pyproject.toml --extra server --extra redis --group dev -o requirements/dev.txt
	@$(LOCK) pyproject.toml --extra server --group build -o requirements/runtime.txt -c requirements/dev.txt
	@$(LOCK) benchmarks/peers/requirements.in -o benchmarks/peers/requirements.txt

wheel: $(VENV)/dev.stamp  ## the wheel, in dist/
	@$(BIN)/uv build -q --wheel --no-build-isolation --python $(BIN)/python

bench: $(VENV)/dev.stamp  ## every figure beside its baseline; BENCH_ARGS="--only NAME" for some; see docs/performance.md
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-quick: $(VENV)/dev.stamp  ## the same with less work, in under three minutes
	@$(BIN)/python -m benchmarks --quick $(BENCH_ARGS)

bench-peers: $(VENV)/dev.stamp  ## other task queues, installed under build/, beside ours; BENCH_ARGS="--only NAME" for some
	@$(BIN)/python -m benchmarks.peers $(BENCH_ARGS)

soak: $(VENV)/dev.stamp  ## the fault tests and random walks, long: SOAK_ROUNDS and SOAK_SEED choose how long and which
	@SOAK_ROUNDS=$${SOAK_ROUNDS:-20} $(BIN)/python -m pytest tests/faults tests/store/test_dispatch_model.py -x --timeout 3600 $(PYTEST_ARGS)

fuzz: $(VENV)/dev.stamp  ## the fuzz tests, long: FUZZ_EXAMPLES and FUZZ_SEED choose how long and which
	@export FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-400000} FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)}; echo "FUZZ_SEED=$$FUZZ_SEED"; \
	$(BIN)/python -m pytest tests/fuzz --timeout 36000 $(PYTEST_ARGS)

clean:  ## remove what was made here, data excepted
	@rm -rf $(VENV) build dist .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# A stamp is written last, so an interrupted set-up is taken up again by the next run. uv does not repair half-written
# packages: when the process that was installing is gone, the environment is made anew.
INSTALLING := $(VENV)/installing
ifneq ($(shell test -f $(INSTALLING) && ! kill -0 `cat $(INSTALLING)` 2>/dev/null && echo gone),)
.PHONY: $(VENV)/venv.stamp
endif

$(VENV)/venv.stamp: requirements/bootstrap.txt
	@rm -f $(VENV)/*.stamp
	@python="$(PYTHON)"; \
	for candidate in $${python:-python3 python3.14 python3.13 python3.12 python3.11}; do \
		if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
			then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "error: Python 3.11 or later with its venv module is needed; PYTHON=/path/to/python chooses one" >&2; exit 1; \
	fi; \
	echo "setting up $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/runtime.stamp: $(VENV)/venv.stamp requirements/runtime.txt pyproject.toml
	@echo $$PPID > $(INSTALLING)
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/runtime.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@ && rm -f $(INSTALLING)

$(VENV)/dev.stamp: $(VENV)/runtime.stamp requirements/dev.txt
	@echo $$PPID > $(INSTALLING)
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@ln -sfn "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" $(VENV)/site-packages
	@touch $@ && rm -f $(INSTALLING)
