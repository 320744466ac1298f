# Needs Python >= 3.11 and make. Everything else is installed into .venv, once.
# `make run` installs the package alone, `make test` the development tools too.

PYTHON ?= python3
SIZE ?= quick
MINUTES ?= 12

VENV := .venv
BIN := $(VENV)/bin
# Other libraries live apart: they bring a hundred packages that nothing here needs.
PEERS := .venv-peers
# Threads come from processes here: two processes with one thread each beat one process with two.
ONE_THREAD := OMP_NUM_THREADS=1

# Data sets that lie beside the checkout are used where no cache folder was chosen.
ifeq ($(origin CLTEACH_DATA),undefined)
ifneq ($(wildcard ../shared/data/.),)
export CLTEACH_DATA := $(abspath ../shared/data)
endif
endif

# pip stands in wherever uv is missing or cannot reach the registry that pip is set up for.
install = if [ -x $(BIN)/uv ] && $(BIN)/uv pip install --python $(1)/bin/python $(2); then :; \
	else $(1)/bin/python -m pip install $(2); fi

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help run setup test lint unit check-notebooks book pdf check-book wheel-test notebooks chapters-full exercises claims times record bench gpu peers peers-code clean distclean

help:  ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | awk -F '\t' '{printf "  make %-16s %s\n", $$1, $$2}'

run: $(VENV)/.core  ## set up, train four methods on the bundled digits, print the table, save the picture
	$(BIN)/clteach run

test: lint unit check-notebooks book check-book wheel-test  ## set up and run every check

setup: $(VENV)/.dev  ## set up the development environment in .venv

lint: $(VENV)/.dev  ## ruff, mypy, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: $(VENV)/.dev  ## the unit tests
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m "not book" --durations=8

check-notebooks: $(VENV)/.dev  ## execute every chapter and compare it with what is committed
	$(ONE_THREAD) CLTEACH_SIZE=quick $(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout 300 \
		--nbval-sanitize-with notebooks/sanitize.cfg -n 2 --dist loadscope --timeout 600 --durations=5 notebooks

book: $(VENV)/.dev  ## build the book strictly into book/_build/html
	$(BIN)/python book/assets.py
	$(ONE_THREAD) $(BIN)/python book/live.py
	$(BIN)/python book/_ext/clteach_book.py
	$(BIN)/jupyter-book build . --config book/_config.yml --toc book/_toc.yml --path-output book -W -n --keep-going

pdf: book  ## print the whole book into book/_build/clteach.pdf, through Chromium
	$(BIN)/python book/pdf.py

check-book: $(VENV)/.dev  ## check the built book, in Chromium where it is found
	$(BIN)/python -m pytest -m book --durations=3

wheel-test: $(VENV)/.dev  ## build the wheel, install it into an empty environment and use it from another folder
	$(BIN)/python tests/wheel_check.py

notebooks: $(VENV)/.dev  ## execute the chapters and rewrite them (SIZE=full: the papers' settings, into out/notebooks)
	$(ONE_THREAD) CLTEACH_SIZE=$(SIZE) $(BIN)/python notebooks/execute.py

chapters-full: $(VENV)/.dev  ## execute every cell at full size with a few steps of each training, before a release
	$(ONE_THREAD) $(BIN)/python notebooks/full.py

exercises: $(VENV)/.dev  ## write the exercises of clteach/exercises into the chapters, without executing the rest
	$(BIN)/python notebooks/execute.py --exercises

claims: $(VENV)/.dev  ## execute the chapters with other random numbers and list the claims that come out differently
	$(ONE_THREAD) $(BIN)/python notebooks/claims.py

times: $(VENV)/.dev  ## measure what the chapters take, for the instructor's guide (SIZE=full on a GPU)
	$(ONE_THREAD) CLTEACH_SIZE=$(SIZE) $(BIN)/python notebooks/execute.py --times

record: $(VENV)/.core  ## copy the numbers that `clteach reproduce` wrote to results/ into the package and the README
	@ls results/*.json >/dev/null 2>&1 || { echo "results/ holds no *.json: run '$(BIN)/clteach reproduce NAME' first"; exit 1; }
	cp results/*.json clteach/results/
	$(BIN)/python -m clteach.results README.md

bench: $(VENV)/.dev  ## measure every method beside a bare loop of the same arithmetic, and grading beside an older build
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python -m benchmarks.multiband
	$(BIN)/python -m benchmarks.diffusion
	$(BIN)/python benchmarks/generative_classifier.py
	$(BIN)/python -m benchmarks.grading
	$(ONE_THREAD) $(BIN)/python -m benchmarks.seeds

gpu: $(VENV)/.dev  ## all that is wanted of a GPU, in MINUTES=12: tests, speed, many seeds, records; repeat it to go on
	$(BIN)/python -m benchmarks.gpu --minutes $(MINUTES)

peers: $(PEERS)/.made  ## test data and numbers against other libraries, in an environment of its own (.venv-peers)
	CLTEACH_PEERS="$${CLTEACH_PEERS:-$(PEERS)/code}" $(ONE_THREAD) $(PEERS)/bin/python -m pytest -W default --durations=5 tests/peers

peers-code:  ## check out the research code that is no package, so that make peers tests its rows, too
	while read -r name commit; do \
		folder=$(PEERS)/code/$${name##*/}; git init -q $$folder && \
		git -C $$folder fetch -q --depth 1 https://github.com/$$name $$commit && git -C $$folder checkout -q FETCH_HEAD || exit 1; \
	done < tests/peers/repositories.txt

clean:  ## remove what was built
	rm -rf book/_build book/api book/_static/vendor book/_static/live book/_static/cards build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean  ## remove what was built, .venv and .venv-peers
	rm -rf $(VENV) $(PEERS)

# The stamps: made once, again when pyproject.toml changes.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1)' || { \
		echo "clteach needs Python >= 3.11, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing)." \
		"Name another one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
		echo "'$(PYTHON)' cannot make virtual environments: its venv or ensurepip module is missing" \
		"(on Debian and Ubuntu: apt-get install python3-venv)."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv || echo "uv could not be installed; pip does the work."
	@touch $@

$(VENV)/.core: pyproject.toml | $(VENV)/.made
	$(call install,$(VENV),-e .)
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	$(call install,$(VENV),-e ".[dev]")
	@touch $(VENV)/.core $@

$(PEERS)/.made: pyproject.toml tests/peers/requirements.txt | $(VENV)/.made
	$(PYTHON) -m venv $(PEERS)
	$(call install,$(PEERS),-e . -r tests/peers/requirements.txt)
	@touch $@
