# Two commands: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
VENV ?= .venv
# which packages: onedl, openmmlab, or oldest (the oldest of OneDL, PyTorch and timm that work)
STACK ?= onedl
# which tests; MARKS="not gpu" runs all that CI does
MARKS ?= not gpu and not slow and not integration
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed

# mmcv compiles against the torch it will run with, without CUDA: ten minutes once, then pip has the wheel
PINNED := $(PIP) --constraint requirements/openmmlab.txt
before-openmmlab := $(PINNED) torch setuptools wheel ninja && \
    CUDA_VISIBLE_DEVICES= $(PINNED) --no-build-isolation mmcv

QUICKSTART := configs/quickstart/thinkingvit_scenes-96x96.py
DEMO := work_dirs/demo

# not what users put beside it
CODE := configs tests tools tvit_seg setup.py tvit.py

.PHONY: install demo test test-openmmlab lint docs

install: $(INSTALLED)

$(INSTALLED): requirements/$(STACK).txt requirements/peers.txt setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) else \
	    f"error: Python {v[0]}.{v[1]} found, 3.10 to 3.12 needed; name one: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(before-$(STACK))
	$(PIP) -r requirements/$(STACK).txt
	$(if $(filter onedl,$(STACK)),$(PIP) --no-deps -r requirements/peers.txt)
	$(PIP) --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $@

# a thread for each core, and none that spins while another program has its core
demo: export OMP_WAIT_POLICY ?= PASSIVE
demo: install
	$(RUN) tools/make_scenes.py data/scenes --size 96
	$(RUN) tools/train.py $(QUICKSTART) --work-dir $(DEMO)
	$(RUN) tools/test.py $(QUICKSTART) $$(cat $(DEMO)/last_checkpoint) --work-dir $(DEMO) --show-dir $(DEMO)/overlays
	$(RUN) tools/analysis/sweep.py $(QUICKSTART) $$(cat $(DEMO)/last_checkpoint) --work-dir $(DEMO) \
	    --plot $(DEMO)/sweep.png
	@echo "Quality against cost: $(DEMO)/sweep.png. Overlays with the stage of each image: $(DEMO)/overlays"

# one thread for each of the two test processes: more would wait for each other;
# types are checked against the newest versions, as older ones have other types
test: export OMP_NUM_THREADS = 1
test: install
	$(RUN) -m ruff check $(CODE)
	$(RUN) -m ruff format --check $(CODE)
	$(if $(filter onedl,$(STACK)),$(RUN) -m mypy)
	$(RUN) -m pytest -n 2 --dist loadfile -m "$(MARKS)"

# the same tests on OpenMMLab's original packages
test-openmmlab:
	$(MAKE) test STACK=openmmlab VENV=.venv-openmmlab

lint: install
	$(RUN) -m ruff check --fix $(CODE)
	$(RUN) -m ruff format $(CODE)

# the site, for any browser: site/index.html; a broken link or reference is an error
DOCS := .venv-docs
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(DOCS)/.installed
	$(DOCS)/bin/python -m mkdocs build --strict

$(DOCS)/.installed: requirements/docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
