# `make demo` and `make test` do all the set-up they need; see `make help`.

PYTHON ?= python3
VENV ?= .venv
# Another PyTorch build than the tested one, e.g. TORCH="torch==2.11.0 torchvision==0.26.0"
TORCH ?=
# The pip index to take PyTorch from (a CPU-only build, another CUDA); empty: pip's own
TORCH_INDEX ?=
PYTEST_ARGS ?=
EVIDENCE_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo demo-det demo-video test docs evidence env light lint clean

SETUP = $(PYTHON) tools/setup_env.py --venv '$(VENV)' --torch '$(TORCH)' --torch-index '$(TORCH_INDEX)'
HAVE_PYTHON = command -v '$(PYTHON)' >/dev/null || { echo 'No $(PYTHON) here: install Python >= 3.10 or name one: make PYTHON=/path/to/python3'; exit 1; }

help:
	@echo 'make demo   set up what classification needs, train STViT on handwritten digits, test and infer (no compiler)'
	@echo 'make demo-det  the same for detection: scenes of digits, boxes and masks (sets up everything, as make test)'
	@echo 'make demo-video  the same for video: mp4 clips of moving digits and how they move'
	@echo 'make test   set up everything (classification, detection, video; needs a C++ compiler) and run the tests'
	@echo 'make evidence  train all pairs on the digits, measure, write docs/evidence.md (hours; may be interrupted)'
	@echo 'make docs   set up the same and build the site of documentation in docs/_build/html'
	@echo 'make env    set up everything, run nothing'
	@echo 'make lint   ruff and codespell'
	@echo 'make clean  remove build files and caches (the environment and work_dirs/ stay)'
	@echo
	@echo 'PYTHON=$(PYTHON)  VENV=$(VENV)  the Python to start from and the folder of the environment'
	@echo 'TORCH="torch==X torchvision==Y"  TORCH_INDEX=<pip index>  choose the PyTorch build (a CPU-only one, another CUDA)'
	@echo 'PYTEST_ARGS="-k name"  given on to pytest;  EVIDENCE_ARGS="--jobs 2"  given on to make evidence (--help tells)'

demo: light
	@'$(VENV)/bin/python' tools/demo.py

demo-det: env
	@'$(VENV)/bin/python' tools/demo_det.py

demo-video: env
	@'$(VENV)/bin/python' tools/demo_video.py

test: env
	@OMP_NUM_THREADS=1 '$(VENV)/bin/python' -m pytest tests -q -n auto --maxprocesses 8 --dist loadfile $(PYTEST_ARGS)

docs: env
	@'$(VENV)/bin/python' -m sphinx -W --keep-going -q docs docs/_build/html
	@echo 'open docs/_build/html/index.html'

evidence: env
	@'$(VENV)/bin/python' tools/analysis_tools/evidence.py $(EVIDENCE_ARGS)

light:
	@$(HAVE_PYTHON)
	@$(SETUP) light

env:
	@$(HAVE_PYTHON)
	@$(SETUP) full

lint:
	@test -x '$(VENV)/bin/codespell' || { echo 'ruff and codespell are not in $(VENV): run `make env` first'; exit 1; }
	@'$(VENV)/bin/ruff' check .
	@'$(VENV)/bin/ruff' format --check .
	@'$(VENV)/bin/codespell'

clean:
	@rm -rf build dist docs/_build ./*.egg-info .pytest_cache .ruff_cache
	@find mmstvit configs tools tests -name __pycache__ -type d -prune -exec rm -rf {} +
