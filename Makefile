# The two commands of the README: `make demo` and `make test`. Both make .venv from the locks where it is missing;
# the demo installs what runs, the tests what checks too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev

.PHONY: demo test bench lint type judges judges-quick engines hostile compatibility lock clean

demo: $(RUN)
	$(BIN)/vivavoce demo $(ARGS)

test: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist worksteal $(ARGS)

lint: $(DEV)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

# Needs a machine that does nothing else; ARGS: --list names the cases, see bench/__main__.py.
bench: $(DEV)
	$(BIN)/python -m bench $(ARGS)

type: $(DEV)
	$(BIN)/mypy

# Clients that others wrote, each in an environment of its own under .judges/ (docs/reference/clients.md).
judges: $(RUN)
	$(BIN)/python tests/judges/run.py $(ARGS)

judges-quick: $(RUN)
	$(BIN)/python tests/judges/run.py --quick $(ARGS)

# Engines in environments of their own, with tiny models: llama.cpp's server behind `openai_compatible`, and llama.cpp in
# our workers, which is built from source (a C++ compiler, and minutes the first time).
engines: $(DEV)
	$(BIN)/python tests/llama_server/llama_server_run.py $(ARGS)
	$(BIN)/python tests/llama/llama_run.py $(ARGS)

# Hostile clients, for as many events and with the seed that are asked for (CONTRIBUTING.md).
EVENTS ?= 200000
SEED ?= 1
hostile: $(DEV)
	$(BIN)/python tests/hostile/hostile_run.py --events $(EVENTS) --seed $(SEED)
	$(BIN)/python tests/hostile/hostile_codec.py --events $(EVENTS) --seed $(SEED)

# COMPATIBILITY.md and the page of errors, from what the tests run; `make test` fails when they are out of date.
compatibility: $(DEV)
	$(BIN)/python scripts/compatibility.py --write

$(RUN): requirements/run.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("vivavoce needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	@echo 'Installing into $(VENV); this takes about a minute, once.'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/run.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $(RUN)

$(DEV): $(RUN) requirements/dev.lock
	$(PIP) install --require-hashes -r requirements/dev.lock
	touch $(DEV)

# Needs `uv` (PyPI): writes the lock for every supported Python and platform.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
  --no-header pyproject.toml requirements/build.in
lock:
	$(LOCK) -o requirements/run.lock
	$(LOCK) --group dev -c requirements/run.lock -o requirements/dev.lock

clean:
	rm -rf $(VENV) .judges .engines .mypy_cache .ruff_cache .pytest_cache .hypothesis
