# Needs Python >= 3.11, make, git and a package registry; makes everything else in .venv.

# The first Python here that is new enough.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# MLX's backend on Linux: cpu or cuda. On macOS it brings Metal and needs none.
EXTRA ?= $(if $(filter Darwin,$(shell uname -s)),,cpu)

BIN := .venv/bin
COMMA := ,
BASE_STAMP := .venv/.installed-$(or $(EXTRA),metal)
DEV_STAMP := .venv/.installed-$(or $(EXTRA),metal)-dev
PEERS_STAMP := .venv/.installed-bench-actors
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint .ci/constraints.txt

.PHONY: help serve test test-slow check bench lock clean

help:
	@echo "make serve       serve the default model on port 8000 (ARGS='--port 9000', EXTRA=cuda)"
	@echo "make test        the test suite;   make test-slow   the long one"
	@echo "make check       ruff, mypy strict, the wheel, the reference"
	@echo "make bench NAME=ttft   run benchmarks/ttft.py"

# An environment made by hand is used as it is.
.venv/.made:
	@test -n "$(PYTHON)" || { echo "greenroom needs Python 3.11 or newer"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@touch $@

$(BASE_STAMP): pyproject.toml .ci/constraints.txt | .venv/.made
	$(INSTALL) --editable '.$(if $(EXTRA),[$(EXTRA)])'
	@touch $@

$(DEV_STAMP): pyproject.toml .ci/constraints.txt | .venv/.made
	$(INSTALL) --editable '.[$(if $(EXTRA),$(EXTRA)$(COMMA))test,check,bench]'
	@touch $(BASE_STAMP) $@

$(PEERS_STAMP): $(DEV_STAMP)
	$(INSTALL) --editable '.[bench-actors]'
	@touch $@

serve: $(BASE_STAMP)
	$(BIN)/greenroom serve $(ARGS)

test: $(DEV_STAMP)
	$(BIN)/pytest -m "not slow" $(ARGS)

test-slow: $(DEV_STAMP)
	$(BIN)/pytest -m slow $(ARGS)

check: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python .ci/wheel_check.py
	$(BIN)/python .ci/reference.py --check

bench: $(DEV_STAMP) $(if $(filter actors,$(NAME)),$(PEERS_STAMP))
	@test -f benchmarks/$(NAME).py || { echo "NAME is one of:" $(basename $(notdir $(wildcard benchmarks/*.py))); exit 1; }
	$(BIN)/python -m benchmarks.$(NAME) $(ARGS)

# Versions only: no registry and no local path may get into the file.
lock: $(DEV_STAMP) $(PEERS_STAMP)
	head -2 .ci/constraints.txt > .ci/constraints.new
	$(BIN)/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' >> .ci/constraints.new
	mv .ci/constraints.new .ci/constraints.txt

clean:
	rm -rf .venv build dist greenroom.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
