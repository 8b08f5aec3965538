"""``mmstvit test --dtype``: networks compute in the data type that is asked for, in all toolboxes."""

import pickle

import pytest
import torch
from mmengine.model import BaseModel

from mmstvit.cli.test import main as evaluate


@pytest.fixture
def computed(monkeypatch):
    """The data types of what the last layers of heads give."""
    seen, step = set(), BaseModel.test_step

    def test_step(model, data):
        layers = [
            m
            for name, m in model.named_modules()
            if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)) and not name.startswith('auxiliary_head')
        ]
        handle = layers[-1].register_forward_hook(lambda module, args, out: seen.add(out.dtype))
        try:
            return step(model, data)
        finally:
            handle.remove()

    monkeypatch.setattr(BaseModel, 'test_step', test_step)
    return seen


def evaluated(run, tmp_path, dtype):
    out = tmp_path / f'{dtype}.pkl'
    evaluate([*map(str, (run.config, run.checkpoint, '--work-dir', tmp_path / dtype, '--out', out)), '--dtype', dtype])
    return pickle.loads(out.read_bytes())


def scores_of(sample):
    if 'seg_logits' in sample:
        return sample['seg_logits']['data']
    return sample['pred_instances']['scores'] if 'pred_instances' in sample else sample['pred_score']


@pytest.mark.filterwarnings('ignore:.*has been created')
@pytest.mark.parametrize('name', ['trained', 'detection', 'segmentation', 'video'])
def test_logits_are_of_the_dtype(name, request, tmp_path, computed):
    run = request.getfixturevalue(name)
    whole = evaluated(run, tmp_path, 'float32')
    assert computed == {torch.float32}
    computed.clear()
    half = evaluated(run, tmp_path, 'bfloat16')
    assert computed == {torch.bfloat16}
    assert len(whole) == len(half) > 0
    assert all(scores_of(sample).dtype == torch.float32 for sample in half)
    sums = [sum(float(scores_of(sample).square().sum()) for sample in samples) for samples in (whole, half)]
    assert sums[0] == pytest.approx(sums[1], rel=0.2)


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU computes in it')
def test_a_cpu_refuses_float16(trained, fails):
    line = fails(evaluate, trained.config, trained.checkpoint, '--dtype', 'float16')
    assert 'float16' in line and 'bfloat16' in line and 'cpu' in line
