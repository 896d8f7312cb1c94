# KMS Console. `make` lists what there is to do.

PORT ?= 8000
DATA ?= ./var
VENV ?= .venv
ARGS ?=
export PORT DATA

BIN = $(VENV)/bin

# Settings make secrets and folders where they are loaded: for checks and tests not those of `run`.
APART = KMS_DATA="$(CURDIR)/build/data" KMS_ROOT_KEY_PATH="$(CURDIR)/build/root-key"

.DEFAULT_GOAL := help
.PHONY: help setup run test test-exhaustive bench peers check lock clean

help: ## list the targets
	@echo "KMS Console"
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "  make %-16s %s\n", $$1, $$2 }'
	@echo
	@echo "  make run PORT=8123 DATA=some/folder     make test ARGS='-k shell -x'"

setup: $(VENV)/.development ## make .venv with everything that development needs

run: $(VENV)/.runtime ## start all of it with the worked example (PORT, DATA; Ctrl-C stops)
	@exec $(BIN)/python manage.py up --demo --port "$$PORT" --data "$$DATA"

# On every core; ARGS='-n 0' for one process, as a debugger wants it.
SPREAD = --numprocesses auto --dist worksteal

test: $(VENV)/.development ## run the tests (ARGS='-k word')
	@exec env $(APART) $(BIN)/python -m pytest $(SPREAD) -m "not exhaustive" $(ARGS)

test-exhaustive: $(VENV)/.development ## run every test, those that take long too
	@exec env $(APART) $(BIN)/python -m pytest $(SPREAD) $(ARGS)

bench: $(VENV)/.development ## measure what it costs (ARGS='uses --write': beside its peers)
	@exec $(BIN)/python -m bench $(ARGS)

peers: $(VENV)/.development ## build and fetch the servers that key stores are tested against
	$(BIN)/python -m tests.peers.aws
	$(BIN)/python -m tests.peers.openbao

check: $(VENV)/.development ## lint, format, types, migrations, deployment checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(APART) $(BIN)/mypy
	$(APART) $(BIN)/python manage.py makemigrations --check --dry-run
	$(APART) TLS=yes $(BIN)/python manage.py check --deploy --fail-level WARNING

lock: $(VENV)/.development ## resolve the dependencies anew and pin them with their hashes
	$(BIN)/uv pip compile --quiet --upgrade $(LOCKED) --extra post-quantum pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade $(LOCKED) -c requirements.lock --extra dev pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --upgrade $(LOCKED) -c requirements-dev.lock --extra post-quantum $(STORES) pyproject.toml -o requirements-stores.lock

STORES = --extra aws --extra azure --extra gcp --extra vault
LOCKED = --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

clean: ## remove .venv and what the checks left (never the data in ./var)
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache

# A stamp is newer than its lock as long as what is installed is what the lock says.
$(VENV)/.development: requirements-dev.lock $(VENV)/.made
	$(call install,requirements-dev.lock)
	@touch $(VENV)/.runtime $@

$(VENV)/.runtime: requirements.lock $(VENV)/.made
	$(call install,requirements.lock)
	@touch $@

define install
	@echo "Installing $(1) into $(VENV)"
	@if uv --version >/dev/null 2>&1; then \
	  uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r $(1); \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1); \
	fi
endef

$(VENV)/.made:
	@found=; \
	for python in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    found=$$python; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "KMS Console needs Python 3.11 or newer, and none was found." >&2; \
	  echo "Debian: apt-get install python3 python3-venv; macOS: brew install python@3.12." >&2; \
	  echo "One in another place: make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	options=; \
	if ! $$found -c 'import venv, ensurepip' >/dev/null 2>&1; then \
	  if uv --version >/dev/null 2>&1; then \
	    options=--without-pip; \
	  else \
	    echo "This Python can't make a virtual environment with pip." >&2; \
	    echo "Debian: apt-get install python3-venv" >&2; \
	    exit 1; \
	  fi; \
	fi; \
	echo "Making $(VENV) with $$found"; \
	$$found -m venv $$options $(VENV) && touch $@
