# Two commands: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

QUICKSTART := configs/quickstart/thinkingvit_scenes-96x96.py
DEMO := work_dirs/demo

.PHONY: install demo test lint

install: $(INSTALLED)

$(INSTALLED): requirements/onedl.txt setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) else \
	    f"error: Python {v[0]}.{v[1]} found, 3.10 to 3.12 needed; name one: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements/onedl.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	    --config-settings editable_mode=compat -e .
	@touch $@

demo: install
	$(RUN) tools/make_scenes.py data/scenes --size 96
	$(RUN) tools/train.py $(QUICKSTART) --work-dir $(DEMO)
	$(RUN) tools/test.py $(QUICKSTART) $$(cat $(DEMO)/last_checkpoint) --work-dir $(DEMO) --show-dir $(DEMO)/overlays
	$(RUN) tools/analysis/sweep.py $(QUICKSTART) $$(cat $(DEMO)/last_checkpoint) --work-dir $(DEMO) \
	    --plot $(DEMO)/sweep.png
	@echo "Quality against cost: $(DEMO)/sweep.png. Overlays with the stage of each image: $(DEMO)/overlays"

# one thread for each of the two test processes: more would wait for each other
test: export OMP_NUM_THREADS = 1
test: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest -n 2 --dist loadfile -m "not gpu"

lint: install
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
