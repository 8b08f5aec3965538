"""What runs is what a config says: what protects a run is in the config that it leaves behind."""

import json
import os
import pickle

import mmengine
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, RUNNERS
from mmengine.runner import Runner
from run_helpers import Call, read_scalars

from mmstvit.cli.test import main as evaluate
from mmstvit.cli.train import main as train
from mmstvit.engine.running import build_runner
from mmstvit.errors import UsageError

# Two runs of one second share mmengine's log.
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created')

ONE_EPOCH = ('train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=100', 'randomness.seed=0')


def dumped(work_dir):
    return Config.fromfile(next(work_dir.glob('*.py')))


def losses(work_dir):
    return [line['loss'] for line in read_scalars(work_dir) if 'loss' in line]


@pytest.mark.parametrize(
    'options, runner', [((), 'mmstvit.Runner'), (('strategy.type=SingleDeviceStrategy',), 'mmstvit.FlexibleRunner')]
)
def test_dumped_config_of_a_training(options, runner, tiny_config, tmp_path):
    """It names what protected the training, and trains the same when mmengine alone builds it."""
    options = (*ONE_EPOCH, *options, 'activation_checkpointing=backbone')
    train([str(tiny_config), '--work-dir', str(tmp_path / 'a'), '--trust-data', '--cfg-options', *options])
    cfg = dumped(tmp_path / 'a')
    assert cfg.runner_type == runner and cfg.data_checks == dict(trust_data=True)
    assert cfg.default_hooks.checkpoint.type == 'mmstvit.SafeCheckpointHook'
    kinds = {hook.type for hook in cfg.custom_hooks}
    assert {'mmstvit.NonFiniteGuardHook', 'mmstvit.ActivationCheckpointingHook'} <= kinds
    cfg.work_dir, cfg.experiment_name = str(tmp_path / 'b'), 'again'
    RUNNERS.build(cfg).train()
    assert dumped(tmp_path / 'b').to_dict() == cfg.to_dict()
    assert losses(tmp_path / 'b') == losses(tmp_path / 'a') and losses(tmp_path / 'a')


def test_dumped_config_of_a_test(trained, tmp_path):
    out = tmp_path / 'metrics.json'
    evaluate([str(arg) for arg in (trained.config, trained.checkpoint, '--work-dir', tmp_path / 'a', '--out', out)])
    cfg = dumped(tmp_path / 'a')
    assert cfg.runner_type == 'mmstvit.Runner' and cfg.data_checks == dict(trust_data=False)
    cfg.work_dir = str(tmp_path / 'b')
    assert RUNNERS.build(cfg).test() == json.loads(out.read_text())


@DATASETS.register_module()
class Pickled(BaseDataset):
    """Samples of a pickle, each of which names one more."""

    def __getitem__(self, idx):
        return mmengine.load(self.get_data_info(idx)['path'])


# One that is spawned imports all of it anew.
@pytest.mark.parametrize('context', ['fork', 'forkserver', pytest.param('spawn', marks=pytest.mark.long)])
def test_workers_run_nothing_in_data(context, tiny_config, tmp_path):
    """However they are started."""
    mark, file = tmp_path / 'mark', tmp_path / 'sample.pkl'
    file.write_bytes(pickle.dumps(dict(x=np.ones(2), y=Call(os.mkdir, str(mark)))))
    mmengine.dump(dict(metainfo={}, data_list=[dict(path=str(file))]), tmp_path / 'list.pkl')
    cfg = Config.fromfile(tiny_config)
    cfg.test_dataloader.update(num_workers=1, multiprocessing_context=context, persistent_workers=False)
    cfg.test_dataloader.dataset = dict(type='Pickled', ann_file=str(tmp_path / 'list.pkl'), data_prefix={})
    cfg.update(runner_type='mmstvit.Runner', work_dir=str(tmp_path / 'work'))
    with pytest.raises(UsageError, match=f'{file}: it holds posix.mkdir'):
        RUNNERS.build(cfg).test()
    assert not mark.exists()


@RUNNERS.register_module()
class OwnRunner(Runner):
    """A runner of a config."""


@RUNNERS.register_module()
class OwnCheckedRunner(RUNNERS.get('mmstvit.Runner')):
    """One that checks."""


def test_runner_of_the_config(tiny_config, tmp_path):
    """It is used where it checks files, or where they are trusted."""

    def build(runner, trust_data=False):
        cfg = Config.fromfile(tiny_config)
        cfg.update(runner_type=runner, work_dir=str(tmp_path), launcher='none')
        return type(build_runner(cfg, trust_data))

    with pytest.raises(UsageError, match='runner_type=OwnRunner .*: derive it'):
        build('OwnRunner')
    assert build('OwnRunner', trust_data=True) is OwnRunner
    assert build('OwnCheckedRunner') is OwnCheckedRunner
    assert build('Runner') is RUNNERS.get('mmstvit.Runner')
