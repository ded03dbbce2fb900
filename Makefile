# make demo   sets up and builds a real model; make test   sets up and runs every check and test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One more than there are cores, since tests also wait, for servers and for kills; four at the most, for their memory.
WORKERS = $(shell $(BIN)/python -c 'import os; print(min(4, len(os.sched_getaffinity(0)) + 1))')

.PHONY: setup demo demo-ocr test check bench campaign clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt requirements-assets.txt docker/install.sh examples/prepare.py
	PIP_COMPILE=0 sh docker/install.sh $(PYTHON) $(VENV) rtx,dev  # what is imported is compiled then
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-assets.txt
	$(BIN)/python examples/prepare.py
	touch $@

demo: setup
	$(BIN)/trtcompress build examples/mnist/build.yaml

demo-ocr: setup
	$(BIN)/trtcompress build examples/ocr/build.yaml

test: check
	sh docker/install-tests.sh
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python benchmarks/build.py

campaign: setup
	$(BIN)/python benchmarks/campaign.py
	$(BIN)/python benchmarks/faults.py
	$(BIN)/python benchmarks/zoo.py
	$(BIN)/python benchmarks/fleet.py

clean:
	rm -rf $(VENV) .venv38 build .pytest_cache .mypy_cache .ruff_cache .hypothesis
