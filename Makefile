# A fresh machine needs Python 3.11 or 3.12 and make; everything else goes into .venv.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c '$(FITS)' >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help report test lab resimulate retrain lint clean

help:
	@echo "make report      set up, run every notebook, judge every claim, write results/report/index.html"
	@echo "make test        set up, run all tests"
	@echo "make lab         set up, open JupyterLab on the notebooks"
	@echo "make resimulate  do every stored run again from its own workload and compare"
	@echo "make retrain     train every proxy anew, into results/scratch/retrained (needs the texts)"

report: $(VENV)/.notebooks
	$(BIN)/ssjf report

resimulate: $(VENV)/.notebooks
	$(BIN)/ssjf run all --again

retrain: $(VENV)/.test
	SSJF_RESULTS=results/scratch/retrained $(BIN)/ssjf run trainings

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(VENV)/.notebooks
	$(BIN)/jupyter lab notebooks/tour.ipynb

$(VENV)/bin/python:
	@$(or $(PYTHON),false) -c '$(FITS)' || { echo "ssjf needs Python 3.11 or 3.12 (make PYTHON=/path/to/python3.12)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.notebooks: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[notebooks]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[notebooks,train,test]'
	@touch $@ $(VENV)/.notebooks

clean:
	rm -rf $(VENV) results/executed results/report results/scratch
