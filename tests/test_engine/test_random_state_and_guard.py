"""The random numbers of a training as a part of its state, and the search for what is not finite."""

import io
import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from run_helpers import quick_runs
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmstvit.engine.nonfinite import first_nonfinite
from mmstvit.engine.random_state import random_state, seed_dataloader, set_random_state
from mmstvit.engine.stopping import TrainingStopped
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


class Scaled(BaseModel):
    """Its loss is that of the inputs."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.weight * sum(inputs))


class Samples(Dataset):
    """Four numbers, the last of which is none."""

    def __init__(self, named):
        self.named = named

    def __len__(self):
        return 4

    def __getitem__(self, idx):
        named = dict(metainfo=dict(img_path=f'{idx}.jpg', sample_idx=idx)) if self.named else {}
        return dict(inputs=torch.tensor([0.0, 0, 0, float('nan')][idx]), data_samples=BaseDataElement(**named))


class Described(Samples):
    def get_data_info(self, idx):
        return dict(filename=f'{idx}.mp4', label=0)


@pytest.mark.parametrize(
    'samples, by_epoch, said',
    [
        (Samples(True), True, '2.jpg, 3.jpg'),
        (Described(False), True, '2.mp4, 3.mp4'),
        (Samples(False), True, 'sample 2, sample 3'),
        (Samples(False), False, 'no names'),
    ],
)
def test_samples_of_a_loss_that_is_not_finite_are_named(samples, by_epoch, said, tmp_path):
    """Files where they come from files; else what the data set says of what the sampler has chosen."""
    loader = dict(dataset=samples, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=2, num_workers=0)
    with quick_runs():
        runner = Runner(
            Scaled(),
            str(tmp_path),
            loader,
            train_cfg=dict(by_epoch=True, max_epochs=1) if by_epoch else dict(by_epoch=False, max_iters=2),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            custom_hooks=[dict(type='mmstvit.NonFiniteGuardHook')],
            experiment_name=tmp_path.name,
        )
        with pytest.raises(TrainingStopped, match=f'iteration 2 is nan.*{said}'):
            runner.train()


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
