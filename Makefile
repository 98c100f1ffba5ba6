# Everything a clone needs, inside the clone: `make help` lists it.
# PYTHON=... chooses another one of 3.10 to 3.14 than the first found.
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3.10 python3; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)

COMMON := requirements/translation.txt requirements/deploy.txt requirements/efficientnet.txt requirements/dev.txt
UPSTREAM := requirements/openmmlab.txt $(COMMON)
ONEDL := requirements/onedl.txt $(COMMON)
# Upstream's numpy has no wheels for Python 3.13 and later: the forks are the stack there.
NEEDS_ONEDL := $(if $(PYTHON),$(shell $(PYTHON) -c 'import sys; print("yes" * (sys.version_info >= (3, 13)))'))
STACK := $(if $(NEEDS_ONEDL),$(ONEDL),$(UPSTREAM))
# An environment carries the hash of what it was made from in the name of its stamp.
hash = $(shell { $(if $(PYTHON),$(PYTHON) --version;) cat $(1) setup.py mmcen/version.py; } | cksum | cut -d ' ' -f 1)
STAMP := .venv/made-from-$(call hash,$(STACK))
STAMP_ONEDL := .venv-onedl/made-from-$(call hash,$(ONEDL))

PYTEST := -m pytest -q -n auto --dist worksteal --durations=10
# glibc hands large tensors back to the system after every operation, and the next one pays for the
# same pages again; on a CPU keeping them, in huge pages, is up to several times as fast.
MALLOC := glibc.malloc
MEMORY := GLIBC_TUNABLES=$(MALLOC).mmap_max=0:$(MALLOC).trim_threshold=17179869184:$(MALLOC).hugetlb=1
# One thread for each worker: they share the cores already.
TEST_ENV := $(MEMORY) OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help env demo test test-long fuzz lint docs test-onedl bundle clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

env: $(STAMP) ## make .venv from the pinned set for its Python (demo and test do it by themselves)

demo: $(STAMP) ## train, evaluate and picture a small CEN on synthetic rooms
	@$(MEMORY) .venv/bin/python -m mmcen demo

test: $(STAMP) lint ## lint, then the test suite; MMCEN_DATA=... adds the tests on real data
	@$(TEST_ENV) .venv/bin/python $(PYTEST) $(ARGS)

test-long: $(STAMP) ## the test suite with the tests that take long, for a release
	@$(TEST_ENV) .venv/bin/python $(PYTEST) --long $(ARGS)

fuzz: $(STAMP) ## damage 5,000 inputs and kill trainings 200 times, see docs/reliability.md
	@$(TEST_ENV) .venv/bin/python -m tests.fuzz --cases 5000
	@$(TEST_ENV) .venv/bin/python -m tests.fuzz.kills --kills 200

lint: $(STAMP) ## ruff, mypy and codespell
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/codespell

docs: $(STAMP) ## the pages of docs/ as HTML in site/
	@.venv/bin/mkdocs build --strict --site-dir site

test-onedl: $(STAMP_ONEDL) ## the test suite on the OneDL forks, in .venv-onedl
	@$(TEST_ENV) .venv-onedl/bin/python $(PYTEST) $(ARGS)

bundle: $(STAMP) ## what a GPU without network needs, in build/bundle; MMCEN_DATA=... has nyuv2
	@.venv/bin/python projects/paper/bundle.py --data $(or $(MMCEN_DATA),data)/nyuv2

clean: ## remove the environments, caches and what installing left
	rm -rf .venv .venv-onedl *.egg-info build dist site .coverage htmlcov
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find mmcen tools projects tests configs examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): SET := $(STACK)
$(STAMP_ONEDL): SET := $(ONEDL)
ALONE := mmagic==1.2.0  # declares much that it does not need here
UV := $(shell command -v uv)
PIP = $(if $(UV),VIRTUAL_ENV=$(CURDIR)/$(@D) $(UV) pip,$(@D)/bin/python -m pip)
$(STAMP) $(STAMP_ONEDL):
	@$(if $(PYTHON),,echo 'mmcen needs Python 3.10 to 3.14: install one, or name it with PYTHON=...' >&2; exit 1)
	@$(PYTHON) -c '$(SUPPORTED)' || { \
		echo '$(PYTHON) is not Python 3.10 to 3.14, for which the pinned sets are made' >&2; exit 1; }
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	@echo 'Installing $(SET) into $(@D): some minutes, once. Progress: $(@D)/install.log'
	@{ $(PIP) install $(patsubst %,-r %,$(SET)) && \
		$(PIP) install --no-deps $(ALONE) -e . ; } > $(@D)/install.log 2>&1 || { \
		tail -n 5 $(@D)/install.log; \
		echo 'The installation failed, see $(@D)/install.log; run make again to retry.' >&2; exit 1; }
	@touch $@
