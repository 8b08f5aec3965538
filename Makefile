# `make demo` and `make test` do all the set-up they need; see `make help`.

PYTHON ?= python3
VENV ?= .venv
# Another PyTorch build than the tested one, e.g. TORCH="torch==2.11.0 torchvision==0.26.0"
TORCH ?=
# The package index to take PyTorch from (a CPU-only build, another CUDA); empty: the installer's own
TORCH_INDEX ?=
# `compiled`: all of mmcv's operators, where torchvision's NMS, RoIAlign, RoIPool and focal loss are not enough
OPS ?=
PYTEST_ARGS ?=
EVIDENCE_ARGS ?=
MATRIX_ARGS ?=
GPU_REPORT_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo demo-det demo-seg demo-video test test-long test-matrix docs evidence gpu-report env lint clean

PYTEST = OMP_NUM_THREADS=1 '$(VENV)/bin/python' -m pytest -q -n auto --maxprocesses 8 --dist worksteal

help:
	@echo 'make demo   set up everything (no compiler), train STViT on handwritten digits, test and infer'
	@echo 'make demo-det  the same for detection: scenes of digits, boxes and masks'
	@echo 'make demo-seg  the same for semantic segmentation: a class for each pixel of the scenes'
	@echo 'make demo-video  the same for video: mp4 clips of moving digits and how they move'
	@echo 'make test   run the tests'
	@echo 'make test-long  run those that take hours by their nature'
	@echo 'make evidence  train pairs of networks, judge them, write docs/evidence.md (hours; may be interrupted;'
	@echo '               EVIDENCE_ARGS="--tier quick|cpu|gpu" chooses, --list tells how long)'
	@echo 'make gpu-report  time networks beside their dense peers on the GPU of this machine, write docs/gpu_report.md'
	@echo 'make docs   build the site of documentation in docs/_build/html'
	@echo 'make env    set up everything, run nothing'
	@echo 'make test-matrix  the wheel on the Pythons of this machine, with the oldest and the newest PyTorch (20 GB)'
	@echo 'make lint   ruff, codespell, mypy and hadolint'
	@echo 'make clean  remove build files and caches (the environment and work_dirs/ stay)'
	@echo
	@echo 'PYTHON=$(PYTHON)  VENV=$(VENV)  the Python to start from and the folder of the environment'
	@echo 'TORCH="torch==X torchvision==Y"  TORCH_INDEX=<package index>  choose the PyTorch build (a CPU-only one, another CUDA)'
	@echo 'OPS=compiled  compile all of mmcv'"'"'s operators (needs a C++ compiler, 15 to 30 minutes)'
	@echo 'PYTEST_ARGS="-k name"  given on to pytest;  EVIDENCE_ARGS="--jobs 2"  given on to make evidence (--help tells)'
	@echo 'MATRIX_ARGS="--python 3.12"  to make test-matrix;  GPU_REPORT_ARGS="--minutes 20"  to make gpu-report'

demo: env
	@'$(VENV)/bin/python' tools/demo.py

demo-det: env
	@'$(VENV)/bin/python' tools/demo_det.py

demo-seg: env
	@'$(VENV)/bin/python' tools/demo_seg.py

demo-video: env
	@'$(VENV)/bin/python' tools/demo_video.py

test: env
	@$(PYTEST) -m 'not long' $(PYTEST_ARGS)

test-long: env
	@$(PYTEST) -m long $(PYTEST_ARGS)

test-matrix: env
	@'$(VENV)/bin/python' tools/test_matrix.py --uv '$(abspath $(VENV))/bin/uv' $(MATRIX_ARGS)

docs: env
	@'$(VENV)/bin/python' -m sphinx -W --keep-going -q docs docs/_build/html
	@echo 'open docs/_build/html/index.html'

evidence: env
	@'$(VENV)/bin/python' -m projects.evidence $(EVIDENCE_ARGS)

gpu-report: env
	@'$(VENV)/bin/python' -m projects.gpu_report --page docs/gpu_report.md $(GPU_REPORT_ARGS)

env:
	@command -v '$(PYTHON)' >/dev/null || { echo 'No $(PYTHON) here: install Python >= 3.10 or name one: make PYTHON=/path/to/python3'; exit 1; }
	@'$(PYTHON)' tools/setup_env.py --venv '$(VENV)' --torch '$(TORCH)' --torch-index '$(TORCH_INDEX)' --ops '$(OPS)'

lint:
	@test -x '$(VENV)/bin/hadolint' || { echo 'ruff, codespell, mypy and hadolint are not in $(VENV): run `make env` first'; exit 1; }
	@'$(VENV)/bin/ruff' check .
	@'$(VENV)/bin/ruff' format --check .
	@'$(VENV)/bin/codespell'
	@'$(VENV)/bin/mypy' --no-error-summary
	@'$(VENV)/bin/hadolint' Dockerfile

clean:
	@rm -rf build dist docs/_build ./*.egg-info .pytest_cache .ruff_cache .mypy_cache
	@find mmstvit configs tools tests projects -name __pycache__ -type d -prune -exec rm -rf {} +
