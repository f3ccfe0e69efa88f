# From a bare Python: make study runs every notebook in miniature, make explore opens the page on which
# models caption images, make test checks all but the slow tests, make check those, too.
# Overridable: PYTHON (3.11 or newer), VENV, TORCH_INDEX (where to look for a torch wheel first),
# PROFILE (smoke, mini or paper).

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PROFILE ?= mini

BIN := $(VENV)/bin
READY := $(VENV)/.ready
BROWSER := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
# one worker per core, with one thread each; the tests of a file stay with one worker and its fixtures
SPREAD := -n logical --dist loadfile
# the pins of environment.yml, one "name==version" per line
PINS = sed -n 's/^ *- *\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' environment.yml

.PHONY: study explore test check lab figures outputs lint unit slow notebooks clean
.DELETE_ON_ERROR:

study: $(READY)
	$(BIN)/sgv-lab run --profile $(PROFILE)

explore: $(READY)
	$(BIN)/voila notebooks/09_explore.ipynb

test: lint unit notebooks

# here the notebooks run, and are compared, at the profile of their stored outputs
check: lint unit slow
	SGV_PROFILE=mini $(MAKE) notebooks

lab: $(READY)
	$(BIN)/jupyter lab notebooks

# The published figures and the tables behind them, drawn anew into figures/.
figures: $(READY)
	$(BIN)/sgv-lab figures

# The outputs stored in the notebooks, made again at their default profile, mini, without bars.
outputs: $(READY)
	TQDM_DISABLE=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
	--ExecutePreprocessor.record_timing=False notebooks/*.ipynb

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD) tests

# alone on the machine: these measure time, or drive a browser
slow: $(READY)
	$(BIN)/python -m pytest -m "slow$(if $(BROWSER), or browser)" tests

notebooks: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD) --nbval --nbval-current-env \
	--nbval-cell-timeout 600 notebooks

# A wheel without CUDA where the index offers one (a tenth of the size), else the package index's.
$(READY): environment.yml pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PINS) > $(VENV)/pins.txt
	torch=$$(grep '^torch==' $(VENV)/pins.txt); \
	$(BIN)/python -m pip install --quiet --no-deps --retries 0 --timeout 5 --index-url $(TORCH_INDEX) $$torch \
	|| $(BIN)/python -m pip install --no-deps $$torch
	$(BIN)/python -m pip install --quiet -r $(VENV)/pins.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

clean:
	rm -rf runs build .pytest_cache .ruff_cache
