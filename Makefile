# graphclust: one command each. Every target does the set-up that it needs; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
# faiss-cpu by default; `make install EXTRAS=gpu,dev` takes faiss-gpu instead.
EXTRAS ?= cpu,images,dev
# Extra arguments for installing torch, where the default build is not the wanted one
# (for example an index or a folder of wheels): make install TORCH_INSTALL_ARGS="--find-links /wheels"
TORCH_INSTALL_ARGS ?=
TORCH ?= torch
# Test processes. Each computes on one thread, so that they do not fight over the cores.
TEST_WORKERS ?= 2
PYTEST_ARGS ?=
DEMO_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.PHONY: help install demo test test-distributed lint format clean

help:  ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP)  ## create .venv and install the package into it, with its tools

# Some systems ship Python without ensurepip; an existing pip then fills the environment.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "graphclust needs Python 3.10 or later, this is " + sys.version.split()[0] + "; name another with: make install PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) 2>/dev/null \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } \
		|| { rm -rf $(VENV); echo "no virtual environment could be made: install python3-venv (Debian, Ubuntu) or pip" >&2; exit 1; }

# torch first: it decides what the rest is resolved against, and on many machines it is the one large download.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH_INSTALL_ARGS) $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $(STAMP)

demo: $(STAMP)  ## cluster 1,797 handwritten digits; writes demo/overview.png and demo/model
	$(BIN)/python examples/demo.py $(DEMO_ARGS)

test: $(STAMP)  ## run all tests (PYTEST_ARGS="-m 'not slow'" for the quick ones)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

# In an environment of its own, without the constraints: s3fs wants an older python-dateutil than they name.
test-distributed:  ## tests on several Ray nodes on this machine, and on storage with the S3 interface
	$(MAKE) install VENV=$(VENV)-distributed
	$(VENV)-distributed/bin/python -m pip install --quiet --editable '.[$(EXTRAS),distributed]' 'moto[server]' s3fs
	OMP_NUM_THREADS=1 $(VENV)-distributed/bin/python -m pytest tests/distributed tests/test_s3.py tests/test_storage.py $(PYTEST_ARGS)

lint: $(STAMP)  ## ruff check, ruff format --check, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment, caches and the demo's output
	rm -rf $(VENV) $(VENV)-distributed build dist demo .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
