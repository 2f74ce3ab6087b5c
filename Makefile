# make pretrain    set up .venv, install, and pre-train the quickstart model into runs/quickstart
# make lm          the same for a small language model, into runs/lm
# make finetune    the first, then fine-tune that model into runs/finetune
# make test        set up .venv, install, and run the tests
# make test-slow   the tests that take minutes each
# make lint        format check, lint and types

# A Python that is new enough and can make virtual environments; or name one: make PYTHON=…
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys, venv, ensurepip; assert (3, 11) <= sys.version_info < (3, 14)' \
		2>/dev/null && echo $$python && break; done)
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: pretrain lm finetune test test-slow lint docs clean

pretrain: $(VENV)/installed
	$(RUN) -m pretrain --config=configs/pretrain/quickstart.py --workdir=runs/quickstart

lm: $(VENV)/installed
	$(RUN) -m pretrain --config=configs/pretrain/lm_quickstart.py --workdir=runs/lm

finetune: $(VENV)/installed
	test -d runs/quickstart/checkpoints/1000 || $(MAKE) pretrain
	$(RUN) -m finetune --config=configs/finetune/quickstart.py --workdir=runs/finetune

test: $(VENV)/installed-torch
	$(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(VENV)/installed-torch
	$(RUN) -m pytest -m slow

lint: $(VENV)/installed
	$(RUN) -m ruff format --check
	$(RUN) -m ruff check
	$(RUN) -m mypy

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 with the venv module here" \
		"(on Debian and Ubuntu: apt-get install python3-venv); or name one: make PYTHON=…"; exit 1; }
	@echo "Installing into $(VENV) with $(PYTHON): about 1 GB to download, some minutes."
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[dev]'
	@touch $@

# What exported weights are compared with: PyTorch, which only tests need.
$(VENV)/installed-torch: $(VENV)/installed
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[dev,torch]'
	@touch $@

# The page of settings, made from the code.
docs: $(VENV)/installed
	$(RUN) -m spade_jax.config.page pretrain.config:PretrainConfig finetune.config:FinetuneConfig \
		> docs/settings.md

clean:
	rm -rf $(VENV) runs
