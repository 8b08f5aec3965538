"""Memory after many inferences and training steps on inputs of many sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name('long_runs.py')
# PyTorch's oneDNN keeps what it has prepared for the last 1,024 shapes: bounded, but not full after these runs.
LIMITED = {'ONEDNN_PRIMITIVE_CACHE_CAPACITY': '16'}


@pytest.mark.parametrize('kind,count,first', [('infer', 2000, 200), ('train', 500, 200)])
def test_memory_ends_where_it_stood(kind, count, first):
    """All backbones in turn, 200 sizes: within five per cent of what it was after the first 200 runs."""
    command = [sys.executable, str(SCRIPT), kind, str(count)]
    done = subprocess.run(command, env={**os.environ, **LIMITED}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    memory = json.loads(done.stdout)
    before = memory[first * len(memory) // count - 1]
    assert memory[-1] <= 1.05 * before, [round(m / 2**20) for m in memory]
