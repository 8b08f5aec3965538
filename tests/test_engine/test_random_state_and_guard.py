"""The random numbers of a training as a part of its state, and the search for what is not finite."""

import io
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmstvit.engine.nonfinite import _sample_names, first_nonfinite
from mmstvit.engine.random_state import random_state, seed_dataloader, set_random_state
from mmstvit.engine.stops import guard_training


def draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist()


def test_state_comes_back_from_a_file_without_code():
    random.gauss(0, 1), np.random.randn()  # each keeps a second number for the next call
    file = io.BytesIO()
    torch.save(random_state(), file)
    drawn = draw()
    file.seek(0)
    set_random_state(torch.load(file, weights_only=True))
    assert draw() == drawn
    assert draw() != drawn


class Drawn(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, idx):
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])


def test_workers_draw_what_the_epoch_says():
    """Whatever epochs went before; each worker and each epoch other numbers; nothing is drawn in this process."""
    before = random_state()
    epochs = {}
    for order in ((0, 1), (1,)):
        loader = DataLoader(Drawn(), num_workers=2, persistent_workers=True, worker_init_fn=lambda worker: None)
        for epoch in order:
            seed_dataloader(loader, 7, epoch)
            numbers = torch.cat(list(loader))
            assert torch.equal(epochs.setdefault(epoch, numbers), numbers)
    assert len(torch.cat(list(epochs.values())).unique()) == 2 * 4 * 3
    assert torch.equal(random_state()['torch'], before['torch'])


class Root(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Identity())
        self.factor = 1.0

    def forward(self, x):
        return dict(losses=[self.second(self.first(x)).sum() * self.factor], name='x', count=torch.tensor(3))


@pytest.mark.parametrize('compiled', [False, True])
def test_first_layer_that_is_not_finite(compiled):
    model = Root()
    run = torch.compile(model, backend='eager') if compiled else model
    x = torch.ones(1, 2)
    run(x)  # what is compiled later passes over hooks

    def look():
        with first_nonfinite(model) as found:
            run(x)
        return found

    assert look() == []
    model.second[0].weight.data[0, 0] = float('nan')
    assert look() == ['second.0', 'second.1', 'second', '']
    model.second[0].weight.data.zero_()
    model.factor = float('inf')
    assert look() == ['']
    assert not any(module._forward_hooks for module in model.modules())


class Loop(SimpleNamespace):
    pass


def test_names_of_samples(monkeypatch):
    """Files where they come from files; else what the data set says of what the sampler has chosen."""
    monkeypatch.setattr('mmstvit.engine.nonfinite.EpochBasedTrainLoop', Loop)
    named = [BaseDataElement(metainfo=dict(img_path=f'{n}.jpg', sample_idx=n)) for n in 'ab']
    assert _sample_names(None, 0, dict(inputs=[], data_samples=named)) == ['a.jpg', 'b.jpg']

    dataset = SimpleNamespace(get_data_info=lambda i: dict(filename=f'{i}.mp4', label=0))
    loader = SimpleNamespace(batch_sampler=[[0, 1], [2, 3]], dataset=dataset)
    runner = SimpleNamespace(train_loop=Loop(dataloader=loader))
    without = dict(inputs=[], data_samples=[BaseDataElement(), BaseDataElement()])
    assert _sample_names(runner, 1, without) == ['2.mp4', '3.mp4']
    loader.dataset = object()
    assert _sample_names(runner, 1, without) == ['sample 2', 'sample 3']
    runner.train_loop = SimpleNamespace(dataloader=loader)
    assert _sample_names(runner, 1, without) == ['one whose samples carry no names']


@pytest.mark.parametrize('kind', ['CheckpointHook', 'mmengine.CheckpointHook', 'mmstvit.SafeCheckpointHook', 'absent'])
def test_every_training_is_guarded(kind, capsys):
    """Once, however often; with the config's own settings."""
    hooks = {} if kind == 'absent' else dict(checkpoint=dict(type=kind, interval=3))
    cfg = Config(dict(default_hooks=hooks, custom_hooks=[dict(type='EMAHook')]))
    guard_training(cfg)
    guard_training(cfg)
    assert cfg.default_hooks.checkpoint == dict(
        type='mmstvit.SafeCheckpointHook', interval=1 if kind == 'absent' else 3
    )
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook', 'mmstvit.NonFiniteGuardHook']
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('hook', [None, dict(type='MyCheckpointHook')])
def test_no_checkpoints_of_mmengine(hook, capsys):
    cfg = Config(dict(default_hooks=dict(checkpoint=hook)))
    guard_training(cfg)
    assert cfg.default_hooks.checkpoint == hook
    assert 'a signal ends the training without saving its state' in capsys.readouterr().out
