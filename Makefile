# `make demo` and `make test` do all the set-up on a fresh machine; see README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := sora_spec builders train compile tui tests benchmarks

.PHONY: help demo test test-slow test-reference coverage check format types benchmarks constraints schema pictures clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# What the tool itself needs; enough for `make demo`.
$(VENV)/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,export,run,clips,tui]'
	@touch $@

# What tests and checks need on top.
$(VENV)/.development: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.runtime  ## digits to disk, train, generate, export, generate from the bundle: under 8 minutes on 2 cores
	@BIN=$(BIN) bash demo.sh

SHORT := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test: $(VENV)/.development  ## the test suite without the checks marked slow: under 8 minutes on 2 cores
	$(SHORT) $(PYTEST_FLAGS)

test-slow: $(VENV)/.development  ## the checks marked slow: more kernels, more settings, more random specs
	$(BIN)/python -m pytest -m slow $(PYTEST_FLAGS)

# timm would bring a torchvision, and one that does not fit torch keeps diffusers from importing; neither needs it here.
test-reference: $(VENV)/.development  ## official programs as the oracle: OFFICIAL=FOLDER of checkouts, see docs/parity.md
	$(BIN)/python -m pip install --quiet --constraint constraints.txt requests
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt diffusers timm
	OMP_NUM_THREADS=1 OFFICIAL="$(OFFICIAL)" $(BIN)/python -m pytest -m reference tests/reference $(PYTEST_FLAGS)

# Tracing every line doubles the time on Python 3.11, hence a target of its own.
coverage: $(VENV)/.development  ## what `make test` runs, and which lines it reaches: at least 90 %, in twice the time
	$(SHORT) --cov --cov-report=term:skip-covered --cov-fail-under=90 $(PYTEST_FLAGS)

check: $(VENV)/.development types  ## lint, formatting, types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: $(VENV)/.development  ## rewrite the sources in the house format
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# Type checkers do not follow setuptools' package-dir mapping, so they read a folder of links that has the installed shape.
types: $(VENV)/.development
	@rm -rf build/types && mkdir -p build/types/sora_spec
	@ln -s $(CURDIR)/sora_spec/* build/types/sora_spec/
	@for folder in builders train compile tui specs; do ln -s $(CURDIR)/$$folder build/types/sora_spec/$$folder; done
	$(BIN)/basedpyright --warnings

constraints: $(VENV)/.development  ## pin what is installed now
	@{ echo "# What CI installs; regenerate with \`make constraints\`."; \
	   $(BIN)/python -m pip freeze --exclude-editable | sed -E 's/^(torch==[0-9.]+)\+cpu/\1/; s/ @ .*//' ; } > constraints.txt

# Drawn by the app itself, so they cannot show what it does not do.
DRAW := sora-spec tui sora-480p vae.streaming=false --gpu a100-40gb --count 8 --theme textual-dark
pictures: $(VENV)/.development  ## the pictures of the terminal interface in docs/pictures
	$(BIN)/$(DRAW) --size 120x34 --svg docs/pictures/tui-planner-no.svg
	$(BIN)/$(DRAW) --size 120x34 --keys f,enter --svg docs/pictures/tui-planner-yes.svg
	$(BIN)/$(subst false,true,$(DRAW)) --size 120x34 --screen sweep --keys f --svg docs/pictures/tui-sweep.svg
	$(BIN)/$(DRAW) --size 120x34 --keys m,f,enter,m,2 --svg docs/pictures/tui-compare.svg
	$(BIN)/$(DRAW) --size 120x34 --screen spec --svg docs/pictures/tui-spec.svg

clean:  ## remove what the targets made, but no data and no runs
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
