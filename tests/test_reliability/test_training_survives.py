"""Training that is killed, interrupted, out of disk or not finite: what is left is whole, and it goes on as it was."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from run_helpers import ROOT, free_port, says, start_process, tool_env
from torch.distributed import run as torchrun
from torch.distributed.launcher.api import elastic_launch

from mmstvit.cli import train as train_cli
from mmstvit.engine.whole_checkpoints import fault_of

sys.path.insert(0, str(Path(__file__).parent))
import killed_trainings  # noqa: E402
from killed_trainings import result, same  # noqa: E402

SMALL = """
train_dataloader = dict(batch_size=20, dataset=dict(indices=80))
val_dataloader = dict(batch_size=20, dataset=dict(indices=40))
test_dataloader = dict(batch_size=20, dataset=dict(indices=40))
train_cfg = dict(max_epochs=3)
"""
CLASSES = "_base_ = ['{tiny}']\n" + SMALL + "default_hooks = dict(checkpoint=dict(save_best='auto'))\n"
SCENES = """
_base_ = ['mmstvit::digits/mask-rcnn_stvit-r_digits.py']
arch = dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 2, 4, 8))
model = dict(
    backbone=dict(arch=arch),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(num_convs=1, in_channels=16, conv_out_channels=16)))
train_dataloader = dict(batch_size=2, dataset=dict(data_root='{root}/'))
val_dataloader = dict(batch_size=2, dataset=dict(data_root='{root}/'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{root}/annotations/instances_val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=3, val_interval=2)
"""
CLIPS = """
_base_ = ['mmstvit::digits/stvit-swin3d_digits.py']
model = dict(
    backbone=dict(arch=dict(embed_dims=8, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8))), cls_head=dict(in_channels=64))
train_dataloader = dict(
    batch_size=2, dataset=dict(ann_file='{root}/train.txt', data_prefix=dict(video='{root}')))
val_dataloader = dict(
    batch_size=2, dataset=dict(ann_file='{root}/val.txt', data_prefix=dict(video='{root}')))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=3, val_interval=2)
"""


def write(path, text, **places):
    for name, place in places.items():
        text = text.replace(f'{{{name}}}', str(place))
    path.write_text(text)
    return path


def train(*args):
    train_cli.main([str(arg) for arg in args])


def stopped(capsys, *args):
    """The exit code and the last line of a command that does not reach its end."""
    with pytest.raises(SystemExit) as stop:
        train(*args)
    return stop.value.code, capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture(scope='module')
def small(tiny_config, tmp_path_factory):
    return write(tmp_path_factory.mktemp('small') / 'small.py', CLASSES, tiny=tiny_config)


@pytest.fixture(scope='module')
def whole_dir(small, tmp_path_factory):
    """The work dir of a training that nothing has stopped."""
    work_dir = tmp_path_factory.mktemp('whole')
    train(small, '--work-dir', work_dir)
    return work_dir


@pytest.fixture(scope='module')
def whole(whole_dir):
    """Its weights and the state of its optimizer."""
    return result(whole_dir)


@pytest.fixture(scope='module')
def configs(small, tmp_path_factory):
    """A small training in each of the three toolboxes."""
    from mmstvit.datasets.clips import make_clips
    from mmstvit.datasets.scenes import make_scenes

    root = tmp_path_factory.mktemp('configs')
    make_scenes(root / 'scenes', train=4, val=2, size=64, progress=False)
    make_clips(root / 'clips', train=8, val=8, progress=False)
    return [
        small,
        write(root / 'scenes.py', SCENES, root=root / 'scenes'),
        write(root / 'clips.py', CLIPS, root=root / 'clips'),
    ]


# By this seed the second kill comes when there is a checkpoint: also after three, one is resumed.
@pytest.mark.parametrize(
    'kills,seed,toolboxes', [pytest.param(3, 11, 1, id='dose'), pytest.param(20, 0, 3, marks=pytest.mark.long)]
)
def test_killed_at_random(kills, seed, toolboxes, configs, tmp_path):
    """Each resume works, and leads to the very weights and state of the optimizer of the training left alone."""
    (tmp_path / 'killed').mkdir()
    process = start_process(
        killed_trainings.main,
        tmp_path / 'killed',
        kills,
        seed,
        *map(str, configs[:toolboxes]),
        output=tmp_path / 'out.txt',
    )
    process.join()
    said = (tmp_path / 'out.txt').read_text()
    assert process.exitcode == 0, said[-2000:]
    print(said)  # of each toolbox, what was counted: docs/reliability.md has the last figures
    counted = [json.loads(line) for line in said.splitlines() if line.startswith('{')]
    assert len(counted) == toolboxes
    for counts in counted:
        assert counts['moments'] + counts['writes'] + counts['halves'] == kills
        assert counts['half_written'] >= counts['halves'] > 0  # which were under other names
        assert counts['resumed'] > 0
        assert counts['equal'] == counts['finished'] > 0


@HOOKS.register_module(force=True)
class Disturber(Hook):
    """Does ``act(runner)`` once: ``Disturber.plan = (part of the training, iteration, act)``."""

    plan = None

    def _at(self, part, runner):
        if Disturber.plan and Disturber.plan[:2] == (part, runner.iter):
            act, Disturber.plan = Disturber.plan[2], None
            act(runner)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._at('iteration', runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._at('after', runner)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self._at('validation', runner)


@pytest.fixture
def disturbed(small, tmp_path):
    """``disturbed(part, iteration, act)``: a config whose training is disturbed once."""

    def plan(part, iteration, act):
        Disturber.plan = part, iteration, act
        return config

    config = write(
        tmp_path / 'disturbed.py', "_base_ = ['{small}']\ncustom_hooks = [dict(type='Disturber')]\n", small=small
    )
    yield plan
    Disturber.plan = None


def send(number):
    return lambda runner: os.kill(os.getpid(), number)


def pointed_to(work_dir):
    return Path((work_dir / 'last_checkpoint').read_text())


INTERRUPTIONS = [
    (signal.SIGTERM, 'iteration', 1, 'epoch_0_iter_2'),  # of 4 in an epoch
    (signal.SIGINT, 'iteration', 7, 'epoch_1_iter_8'),  # all batches of the epoch are done, its end is not
    (signal.SIGTERM, 'validation', 8, 'epoch_2_iter_8'),
]


def test_signals_save_and_leave(disturbed, small, whole, tmp_path, capsys):
    """Interrupted three times, and taken up again each time."""
    work_dir = tmp_path / 'w'
    for number, part, iteration, place in INTERRUPTIONS:
        before = signal.getsignal(number)
        code, line = stopped(capsys, disturbed(part, iteration, send(number)), '--work-dir', work_dir, '--resume')
        saved = work_dir / f'interrupted_{place}.pth'
        assert code == 128 + number
        assert says(line, f'interrupted by {number.name}', f'{saved}', '--resume')
        assert signal.getsignal(number) is before
        assert pointed_to(work_dir) == saved and fault_of(saved) is None
    train(small, '--work-dir', work_dir, '--resume')
    assert same(result(work_dir), whole)
    left = sorted(path.name for path in work_dir.glob('*.pth') if 'best' not in path.name)
    assert left == ['epoch_2.pth', 'epoch_3.pth']
    # An interrupted validation is made good: each epoch has its one result.
    logs = [json.loads(line) for path in work_dir.glob('*/vis_data/scalars.json') for line in path.open()]
    assert sorted(line['step'] for line in logs if 'accuracy/top1' in line) == [1, 2, 3]


def test_interrupted_files_of_other_trainings_stay(small, whole_dir, tmp_path):
    """One that begins anew in a work dir does not know what they are for."""
    other = tmp_path / 'interrupted_epoch_7_iter_30.pth'
    shutil.copy(whole_dir / 'epoch_3.pth', other)
    train(small, '--work-dir', tmp_path, '--no-validate', '--cfg-options', 'train_cfg.max_epochs=1')
    assert other.is_file() and (tmp_path / 'epoch_1.pth').is_file()


@pytest.mark.parametrize(
    'toolbox, iteration',
    [
        pytest.param(0, 5, id='mmpretrain'),
        pytest.param(1, 3, id='mmdet', marks=pytest.mark.long),
        pytest.param(2, 5, id='mmaction2', marks=pytest.mark.long),
    ],
)
def test_signal_to_the_process_group(toolbox, iteration, configs, tmp_path):
    """As Slurm, Docker and timeout send it: to the workers of training and validation too, which live on."""
    loaders = [
        f'{name}_dataloader.{key}' for name in ('train', 'val') for key in ('num_workers=1', 'persistent_workers=1')
    ]
    config = write(
        tmp_path / 'config.py', "_base_ = ['{base}']\ncustom_hooks = [dict(type='Disturber')]\n", base=configs[toolbox]
    )

    out, options = tmp_path / 'out.txt', ('--cfg-options', 'train_cfg.val_interval=1', *loaders)
    args = (config, '--work-dir', tmp_path / 'w', *options)
    process = start_process(train_until_signal, iteration, args, output=out)
    process.join()
    assert process.exitcode == 128 + signal.SIGTERM, out.read_text()[-3000:]
    assert pointed_to(tmp_path / 'w').name == f'interrupted_epoch_1_iter_{iteration + 1}.pth'


def train_until_signal(iteration, args):
    def act(runner):
        # From another process: a worker that its parent tells to end is no failure.
        subprocess.run(['kill', '-TERM', '--', f'-{os.getpgrp()}'], start_new_session=True, check=True)
        time.sleep(1)  # PyTorch raises as soon as it hears of a worker's end

    os.setsid()
    Disturber.plan = 'iteration', iteration, act
    train(*args)


WORKERS = (
    'train_dataloader.num_workers=2',
    'train_dataloader.persistent_workers=True',
    'optim_wrapper.accumulative_counts=2',
    'default_hooks.checkpoint.max_keep_ckpts=1',
)


def test_workers_and_accumulated_gradients(disturbed, small, tmp_path, capsys):
    """Saved after a step, which is one iteration later; what the workers draw comes again."""
    options = ('--no-validate', '--cfg-options', 'train_cfg.max_epochs=2', *WORKERS)
    config = disturbed('iteration', 4, send(signal.SIGTERM))
    assert stopped(capsys, config, '--work-dir', tmp_path / 'other', *options)[0] == 143
    assert pointed_to(tmp_path / 'other').name == 'interrupted_epoch_1_iter_6.pth'
    train(config, '--work-dir', tmp_path / 'other', '--resume', *options)
    train(small, '--work-dir', tmp_path / 'one', *options)
    assert same(result(tmp_path / 'other'), result(tmp_path / 'one'))
    assert [path.name for path in (tmp_path / 'other').glob('*.pth')] == ['epoch_2.pth']


def test_strategy_and_no_seed(disturbed, small, tmp_path, capsys):
    """The seed that a run without one has found is in its checkpoint, the order of the data with it."""
    options = ('--no-validate', '--cfg-options', 'train_cfg.max_epochs=2', 'strategy.type=SingleDeviceStrategy')
    config = disturbed('iteration', 5, send(signal.SIGTERM))
    stopped(capsys, config, '--work-dir', tmp_path / 'other', *options, 'randomness.seed=None')
    seed = torch.load(pointed_to(tmp_path / 'other'), weights_only=False)['meta']['seed']
    train(config, '--work-dir', tmp_path / 'other', '--resume', *options, 'randomness.seed=None')
    train(small, '--work-dir', tmp_path / 'one', *options, f'randomness.seed={seed}')
    assert same(result(tmp_path / 'other'), result(tmp_path / 'one'))


ITERATIONS = """
_base_ = ['{small}']
custom_hooks = [dict(type='Disturber')]
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=6, val_interval=3)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=3))
experiment_name = 'one of that name has run in this process'
"""


def test_iterations_without_epochs(disturbed, small, tmp_path, capsys):
    config = write(tmp_path / 'iterations.py', ITERATIONS, small=small)
    train(config, '--work-dir', tmp_path / 'one')
    disturbed('iteration', 4, send(signal.SIGTERM))
    assert stopped(capsys, config, '--work-dir', tmp_path / 'other')[0] == 143
    assert pointed_to(tmp_path / 'other').name == 'interrupted_iter_5.pth'
    train(config, '--work-dir', tmp_path / 'other', '--resume')
    assert same(result(tmp_path / 'other'), result(tmp_path / 'one'))


def test_second_signal_ends_at_once():
    from mmstvit.engine.stopping import StopSignals

    pid = os.fork()
    if pid == 0:
        StopSignals().start()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGINT


def test_full_disk(disturbed, small, whole, tmp_path, capsys):
    """As on a full disk, the second checkpoint cannot be written."""
    limits, work_dir = resource.getrlimit(resource.RLIMIT_FSIZE), tmp_path / 'w'
    config = disturbed('iteration', 6, lambda runner: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1])))
    try:
        code, line = stopped(capsys, config, '--work-dir', work_dir)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2
    assert says(line, 'error: ', 'File too large', f'{work_dir / "epoch_1.pth"}', '--resume')
    assert [path.name for path in work_dir.glob('epoch_*.pth')] == ['epoch_1.pth'] and not list(work_dir.glob('.*'))
    train(small, '--work-dir', work_dir, '--resume')
    assert same(result(work_dir), whole)


def spoil(layer):
    def act(runner):
        runner.model.get_submodule(layer).weight.data.fill_(float('inf'))

    return act


LAYER = 'backbone.encoder.layers.2.mlp.fc1'


def test_loss_that_is_not_finite(disturbed, tmp_path, capsys):
    config, work_dir = disturbed('iteration', 5, spoil(LAYER)), tmp_path / 'w'
    code, line = stopped(capsys, config, '--work-dir', work_dir)
    assert code == 2
    assert says(line, 'iteration 6 is nan', f' {LAYER} ', 'not finite')
    assert line.endswith(f' {work_dir / "epoch_1.pth"}')
    assert [path.name for path in work_dir.glob('epoch_*.pth')] == ['epoch_1.pth']
    assert all(value.isfinite().all() for value in result(work_dir)[1].values())
    # The sampler's order and the data set tell which images they were.
    assert len(re.findall(r'sample_idx \d+', line)) == 3 and 'and 17 more, which the log names' in line
    log = next(work_dir.glob('*/*.log')).read_text()
    named = re.search('The batch whose loss is not finite: (.*)', log)[1].split(', ')
    assert len(set(named)) == 20 and named[:3] == re.search('the batch is (.*) and 17', line)[1].split(', ')


def test_weights_that_are_not_finite_are_not_saved(disturbed, tmp_path, capsys):
    """The last step of an epoch spoils them, and no loss has told it yet."""
    config, work_dir = disturbed('after', 7, spoil(LAYER)), tmp_path / 'w'
    code, line = stopped(capsys, config, '--work-dir', work_dir)
    assert code == 2
    assert says(line, f'{LAYER}.weight', 'not finite after iteration 8', 'not saved')
    assert pointed_to(work_dir) == work_dir / 'epoch_1.pth'
    assert [path.name for path in work_dir.glob('epoch_*.pth')] == ['epoch_1.pth']


def test_damaged_checkpoint_is_passed_over(small, whole_dir, whole, tmp_path, capsys):
    for name in ('epoch_2.pth', 'epoch_3.pth', 'last_checkpoint'):
        shutil.copy(whole_dir / name, tmp_path)
    newest = tmp_path / 'epoch_3.pth'
    newest.write_bytes(newest.read_bytes()[:-1000])
    train(small, '--work-dir', tmp_path, '--resume')
    assert f'Passed over {newest}: ' in capsys.readouterr().out
    assert same(result(tmp_path), whole)
    for path in tmp_path.glob('epoch_*.pth'):
        path.write_bytes(b'')
    code, line = stopped(capsys, small, '--work-dir', tmp_path, '--resume')
    assert code == 2 and line.startswith(f'error: none of the checkpoints in {tmp_path} is whole: leave --resume out')


def by_script(words, folder):
    """``dist_train.sh``, which starts torchrun, which starts two Pythons; how to wait for its exit code."""
    with open(folder / 'out.txt', 'a') as out:
        env = tool_env(PYTHON=sys.executable, PORT=free_port())
        command = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), words[0], '2', *words[1:]]
        parent = psutil.Popen(command, stdout=out, stderr=out, env=env, cwd=folder)
    return parent, parent.wait


def by_agent(words, folder):
    """What torchrun runs, in a process that has imported everything, with two forks of it."""
    process = start_process(run_agent, [*words, '--launcher', 'pytorch'], free_port(), output=folder / 'out.txt')

    def wait(timeout):
        process.join(timeout)
        return process.exitcode

    return psutil.Process(process.pid), wait


def run_agent(words, port):
    args = torchrun.parse_args(['--nproc_per_node=2', '--master_addr=127.0.0.1', f'--master_port={port}', 'train.py'])
    config = torchrun.config_from_args(args)[0]
    config.start_method = 'fork'
    elastic_launch(config, train)(*words)


def start_two(start, config, work_dir, *args):
    """A training of two processes, the numbers of which come when both have trained a little."""
    seen = len(list(work_dir.glob('*/vis_data/scalars.json')))
    parent, wait = start([str(word) for word in (config, '--work-dir', work_dir, *args)], work_dir.parent)
    for _ in range(1200):
        logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
        if not alive(parent) or (len(logs) > seen and '"loss"' in logs[-1].read_text()):
            break
        time.sleep(0.1)
    assert alive(parent), (work_dir.parent / 'out.txt').read_text()[-3000:]
    children = parent.children(recursive=True)
    return parent, wait, [child for child in children if start is by_agent or '--launcher' in child.cmdline()]


def alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize('start', [by_agent, pytest.param(by_script, marks=pytest.mark.long)])
def test_two_processes(start, small, tmp_path):
    """Told to end, both save and leave; of a pair that goes on from there, one is killed and the other ends."""
    work_dir, options = tmp_path / 'w', ('--cfg-options', 'train_cfg.max_epochs=500', 'default_hooks.logger.interval=1')
    parent, wait, workers = start_two(start, small, work_dir, *options)
    assert len(workers) == 2
    parent.terminate()
    assert wait(timeout=60) not in (0, None)
    saved = pointed_to(work_dir)
    said = (tmp_path / 'out.txt').read_text()
    assert saved.name.startswith('interrupted_') and fault_of(saved) is None
    assert said.count(f'the state of training is in {saved}: go on with') == 1
    position = torch.load(saved, weights_only=False)['position']
    assert len(position['random']) == 2

    _, wait, workers = start_two(start, small, work_dir, '--resume', *options)
    workers[1].kill()
    assert wait(timeout=60) not in (0, None)
    assert not any(worker.is_running() for worker in workers)
    said = (tmp_path / 'out.txt').read_text()[len(said) :]
    assert 'resumed epoch: ' in said and str(saved) in said
    assert fault_of(pointed_to(work_dir)) is None
