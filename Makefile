# Every target sets itself up: a virtual environment in .venv, made once and again when pyproject.toml changes.
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-math test-vllm test-trl test-verl test-logging check lint types docs wheel test-lowest fuzz kill bench bench-train-step bench-trl-curves clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

.venv/train: pyproject.toml constraints.txt
	@echo "setting up .venv (minutes, once; the log is .venv/train.log) …"
	@$(PYTHON) -m venv .venv
	@{ $(BIN)/pip install -c constraints.txt torch && $(BIN)/pip install -c constraints.txt -e '.[train]'; } \
	  > .venv/train.log 2>&1 || { tail -n 20 .venv/train.log; exit 1; }
	@touch $@

.venv/dev: .venv/train requirements-dev.txt
	@$(BIN)/pip install -c constraints.txt -r requirements-dev.txt > .venv/dev.log 2>&1 || { tail -n 20 .venv/dev.log; exit 1; }
	@touch $@

demo: .venv/train  ## train the tiny default, analyse it, draw the figures
	@$(BIN)/entropy-lab demo

test: .venv/dev  ## run every test (under 5 minutes on 2 cores)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --doctest-modules entropy_lab tests --ignore-glob='*/full_*.py'

test-math: .venv/dev  ## every gold answer of six sets against itself, and hostile answers (minutes)
	$(BIN)/python -m pytest -q -s tests/full_math_sets.py

.venv-vllm/ready: .ci/vllm pyproject.toml constraints.txt
	@echo "setting up .venv-vllm (2 GB, minutes, once; the log is .venv-vllm/install.log) …"
	@PYTHON=$(PYTHON) bash .ci/vllm
	@touch $@

test-vllm: .venv-vllm/ready  ## the rollout engine with the real vLLM, on the processor (minutes)
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -q tests/full_vllm.py

.venv-logging/ready: pyproject.toml constraints.txt
	@echo "setting up .venv-logging (minutes, once; the log is .venv-logging/install.log) …"
	@$(PYTHON) -m venv .venv-logging
	@{ .venv-logging/bin/pip install -c constraints.txt torch pytest && \
	  .venv-logging/bin/pip install -c constraints.txt -e '.[train,tensorboard,wandb,trackio]'; } \
	  > .venv-logging/install.log 2>&1 || { tail -n 20 .venv-logging/install.log; exit 1; }
	@touch $@

test-logging: .venv-logging/ready  ## runs in TensorBoard, Weights & Biases and trackio, offline (minutes)
	OMP_NUM_THREADS=1 .venv-logging/bin/python -m pytest -q tests/full_logging.py

.venv-trl/ready: .ci/trl pyproject.toml constraints.txt
	@echo "setting up .venv-trl, the newest TRL (1.5 GB, minutes, once; the log is .venv-trl/install.log) …"
	@PYTHON=$(PYTHON) bash .ci/trl
	@touch $@

.venv-trl-oldest/ready: .ci/trl pyproject.toml constraints.txt
	@echo "setting up .venv-trl-oldest, the oldest TRL (1.5 GB, minutes, once; the log is .venv-trl-oldest/install.log) …"
	@PYTHON=$(PYTHON) TRL_VERSION=1.0.0 TRL_VENV=.venv-trl-oldest bash .ci/trl
	@touch $@

test-trl: .venv-trl/ready .venv-trl-oldest/ready  ## our estimators and our record in the newest and the oldest TRL (minutes)
	OMP_NUM_THREADS=1 .venv-trl/bin/python -m pytest -q tests/full_trl_*.py
	OMP_NUM_THREADS=1 .venv-trl-oldest/bin/python -m pytest -q tests/full_trl_*.py

.venv-verl/ready: .ci/verl pyproject.toml constraints.txt
	@echo "setting up .venv-verl (2.3 GB, minutes, once; the log is .venv-verl/install.log) …"
	@PYTHON=$(PYTHON) bash .ci/verl
	@touch $@

test-verl: .venv-verl/ready  ## our estimators and our record in the real verl, on the processor (minutes)
	OMP_NUM_THREADS=1 .venv-verl/bin/python -m pytest -q -W ignore tests/full_verl_*.py

check: lint types docs wheel  ## what CI runs beside the tests

lint: .venv/dev  ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev  ## mypy --strict
	$(BIN)/mypy

docs: .venv/dev  ## generated parts of README and docs are true to the code
	$(BIN)/python docs/generate.py --check

wheel: .venv/dev  ## build the wheel, install it alone, use it from a folder that has its own analyses/
	PYTHON=$(PYTHON) bash .ci/smoke

test-lowest:  ## run the core tests on the lowest versions that pyproject.toml allows
	PYTHON=$(PYTHON) bash .ci/lowest

fuzz: .venv/dev  ## damage run files at random: success or one line, never a traceback
	RUST_BACKTRACE=0 $(BIN)/python tests/fuzz_damaged_files.py 2> .venv/fuzz.log
	$(BIN)/python -m tests.fuzz_foreign_files 2>> .venv/fuzz.log

kill: .venv/dev  ## kill a running study ten times: it ends as one that was left alone (minutes)
	$(BIN)/python tests/kill_study.py

bench-train-step: .venv-trl/ready  ## whole training steps beside TRL's (minutes)
	OMP_NUM_THREADS=1 .venv-trl/bin/python -m benchmarks.train_step --bare --old-logp sampler
	OMP_NUM_THREADS=1 .venv-trl/bin/python -m benchmarks.train_step

bench-trl-curves: .venv-trl/ready  ## the same task with our trainer and with TRL and our estimator, three seeds (half an hour)
	OMP_NUM_THREADS=1 .venv-trl/bin/python -m benchmarks.trl_curves

bench: .venv/dev  ## measure analyze beside DuckDB and pandas
	$(BIN)/python benchmarks/group_table.py

clean:  ## remove what the targets made
	rm -rf .venv .venv-vllm .venv-trl .venv-trl-oldest .venv-verl .venv-logging dist demo demo-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
