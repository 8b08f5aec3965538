"""Memory after many inferences and training steps on inputs of many sizes, and two threads at once."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from run_helpers import DETECTION, TINY, VIDEO

from mmstvit import get_model, inference_model
from mmstvit.datasets.clips import draw_clip, write_video

SCRIPT = Path(__file__).with_name('long_runs.py')
# PyTorch's oneDNN keeps what it has prepared for the last 1,024 shapes: bounded, but not full after these runs.
LIMITED = {'ONEDNN_PRIMITIVE_CACHE_CAPACITY': '16'}


@pytest.mark.parametrize(
    'kind,count',
    [
        ('infer', 250),
        *(pytest.param(*case, marks=pytest.mark.long) for case in (('infer', 2000), ('train', 500))),
    ],
)
def test_memory_ends_where_it_stood(kind, count):
    """All backbones in turn, 200 sizes: within five per cent of what it was after the first 200 runs."""
    command = [sys.executable, str(SCRIPT), kind, str(count)]
    done = subprocess.run(command, env={**os.environ, **LIMITED}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    memory = json.loads(done.stdout)
    print([round(m / 2**20) for m in memory])  # docs/reliability.md has the last figures
    before = memory[200 * len(memory) // count - 1]
    assert memory[-1] <= 1.05 * before, [round(m / 2**20) for m in memory]


def values(result):
    """What was found in an input, as an array."""
    if isinstance(result, dict):
        return result['pred_scores']
    return (result.pred_score if hasattr(result, 'pred_score') else result.pred_instances.scores).numpy()


@pytest.mark.parametrize('toolbox', ['mmpretrain', 'mmdet', 'mmaction'])
def test_two_threads_infer_with_one_model(toolbox, tmp_path):
    """From files to results, as one thread does."""
    pytest.importorskip(toolbox)
    config, rng = tmp_path / 'config.py', np.random.default_rng(0)
    template = dict(mmpretrain=TINY, mmdet=DETECTION, mmaction=VIDEO)[toolbox]
    config.write_text(template.replace('{root}', str(tmp_path)))
    for i in range(6):
        if toolbox == 'mmaction':
            write_video(tmp_path / f'{i}.mp4', draw_clip('train', i), 8)
        else:
            cv2.imwrite(str(tmp_path / f'{i}.png'), rng.integers(0, 255, (30 + i, 40, 3), dtype=np.uint8))
    files = sorted(tmp_path.glob('?.*')) * 3
    model = get_model(config)

    def infer(path):
        return values(inference_model(model, path))

    expected = [infer(path) for path in files]
    assert len({tuple(found) for found in expected}) == 6
    with ThreadPoolExecutor(2) as pool:
        for found, one in zip(pool.map(infer, files), expected, strict=True):
            np.testing.assert_array_equal(found, one)
