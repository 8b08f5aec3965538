"""Curves in TensorBoard and Weights & Biases by an option of the training."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from mmengine.config import Config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmstvit.cli import train as train_cli
from mmstvit.engine.running import add_curves


def test_curves_in_tensorboard(trained, tmp_path):
    """The same as in the log; the option is in the config that is left, and resumes with it."""
    options = ('train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=200')
    train_cli.main([str(trained.config), '--work-dir', str(tmp_path), '--tensorboard', '--cfg-options', *options])
    (folder,) = {path.parent for path in tmp_path.rglob('events*')}
    events = EventAccumulator(str(folder)).Reload()
    assert len(events.Scalars('loss')) == 1 and 0 < events.Scalars('accuracy/top1')[0].value <= 100
    assert (folder / 'scalars.json').is_file()
    left = Config.fromfile(tmp_path / 'tiny.py').visualizer.vis_backends
    assert [one.type.split('.')[-1] for one in left] == ['LocalVisBackend', 'TensorboardVisBackend']


@pytest.mark.parametrize('project,settings', [('', {}), ('digits', dict(init_kwargs=dict(project='digits')))])
def test_weights_and_biases(project, settings, monkeypatch):
    package = ModuleType('wandb')
    package.__spec__ = ModuleSpec('wandb', None)
    monkeypatch.setitem(sys.modules, 'wandb', package)
    cfg = Config(
        dict(visualizer=dict(type='X', vis_backends=[dict(type='LocalVisBackend'), dict(type='WandbVisBackend')]))
    )
    add_curves(cfg, wandb=project)
    expected = [dict(type='LocalVisBackend'), dict(type='mmengine.WandbVisBackend', **settings)]
    assert cfg.visualizer == dict(type='X', vis_backends=expected)


def test_without_the_package(trained, tmp_path, fails, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    line = fails(train_cli.main, trained.config, '--work-dir', tmp_path, '--wandb', 'digits')
    assert '--wandb' in line and 'pip install wandb' in line
