"""The scripts that start several processes, two of them on a CPU, and a Slurm that only takes notes.

Training by ``dist_train.sh``, and what a signal does to it, is in ``test_training_survives.py``.
"""

import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from run_helpers import ROOT, free_port, run_ranks, run_script

from mmstvit.cli import test as test_cli

SCRIPTS = ('dist_train.sh', 'dist_test.sh', 'slurm_train.sh')


def by_script(config, checkpoint, *args, folder):
    result = run_script('dist_test.sh', config, checkpoint, 2, *args, folder=folder, PORT=free_port())
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def by_ranks(*args, folder):
    """What the script runs, without the Pythons that it starts."""
    return run_ranks(test_cli.main, *args, output=folder / 'said.txt')


@pytest.mark.parametrize('start', [by_ranks, pytest.param(by_script, marks=pytest.mark.long)])
def test_two_processes_test_as_one(start, trained, tmp_path):
    """Of a number of images that two do not divide, each is predicted once, in its place, as by one process."""
    options = ('--cfg-options', 'test_dataloader.dataset.indices=149')
    out = ('--work-dir', tmp_path / 'w', '--out', tmp_path / 'out.pkl')
    said = start(trained.config, trained.checkpoint, *out, *options, folder=tmp_path)
    assert 'GPU number: 2' in max((tmp_path / 'w').glob('*/*.log')).read_text()
    arguments = (trained.config, trained.checkpoint, '--work-dir', tmp_path / 'one', '--out', tmp_path / 'one.pkl')
    test_cli.main([str(argument) for argument in (*arguments, *options)])
    two, one = (pickle.loads((tmp_path / name).read_bytes()) for name in ('out.pkl', 'one.pkl'))
    assert len(two) == len(one) == 149
    assert [int(p['gt_label']) for p in two] == [int(p['gt_label']) for p in one]
    assert np.allclose(
        [np.asarray(p['pred_score']) for p in two], [np.asarray(p['pred_score']) for p in one], atol=1e-5
    )
    correct = 100 * np.mean([int(p['pred_score'].argmax() == p['gt_label']) for p in one])
    assert re.findall(r'accuracy/top1: ([\d.]+)', said) == [f'{correct:.4f}']


@pytest.fixture
def noting_python(tmp_path):
    """A folder with a ``python`` that writes its arguments and some of its environment down, and fails."""
    (tmp_path / 'python').write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$OMP_WAIT_POLICY" > args.txt\nexit 3\n')
    (tmp_path / 'python').chmod(0o755)
    return tmp_path / 'python'


@pytest.mark.parametrize('tool, args', [('train.py', ['a config.py']), ('test.py', ['a config.py', 'weights.pth'])])
def test_scripts_start_torchrun(tool, args, noting_python, tmp_path):
    """On each of several machines, with all that is given, and its failure is theirs."""
    env = dict(PYTHON=str(noting_python), NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='29777')
    script = f'dist_{tool.removesuffix(".py")}.sh'
    result = run_script(script, *args, 4, '--work-dir', 'with space', folder=tmp_path, **env)
    assert result.returncode == 3
    *said, wait = (tmp_path / 'args.txt').read_text().splitlines()
    assert wait == 'PASSIVE'  # or what the user has set
    assert said == [
        '-m', 'torch.distributed.run', '--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1', '--master_port=29777',
        '--nproc_per_node=4', said[7], *args, '--launcher', 'pytorch', '--work-dir', 'with space',
    ]  # fmt: skip
    assert Path(said[7]).resolve() == ROOT / 'tools' / tool


@pytest.mark.long
def test_failure_is_handed_on(tmp_path):
    result = run_script('dist_train.sh', 'absent.py', 1, folder=tmp_path, PORT=free_port())
    assert result.returncode != 0
    assert 'error: there is no config absent.py' in result.stderr


@pytest.fixture
def srun(tmp_path):
    """A folder with an ``srun`` that writes its arguments and some of its environment down."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    (folder / 'srun').write_text('#!/bin/sh\nprintf "%s\\n" "$@" > args.txt\necho "$MASTER_PORT" > port.txt\n')
    (folder / 'srun').chmod(0o755)
    return folder


def test_slurm(srun, tmp_path):
    env = dict(
        GPUS='16', GPUS_PER_NODE='4', CPUS_PER_TASK='3', SRUN_ARGS='--time=1:00 --quotatype=auto', MASTER_PORT='29777'
    )
    args = ('part', 'my job', 'a config.py', '--work-dir', 'with space', '--amp')
    result = run_script('slurm_train.sh', *args, folder=tmp_path, path=srun, **env)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'args.txt').read_text().splitlines() == [
        '-p', 'part', '--job-name=my job', '--gres=gpu:4', '--ntasks=16', '--ntasks-per-node=4', '--cpus-per-task=3',
        '--kill-on-bad-exit=1', '--time=1:00', '--quotatype=auto', sys.executable, '-u',
        str(ROOT / 'tools' / 'train.py'), 'a config.py', '--launcher', 'slurm', '--work-dir', 'with space', '--amp',
    ]  # fmt: skip
    assert (tmp_path / 'port.txt').read_text() == '29777\n'


def test_slurm_defaults(srun, tmp_path):
    result = run_script('slurm_train.sh', 'part', 'job', 'config.py', folder=tmp_path, path=srun, GPUS='2')
    assert result.returncode == 0, result.stderr
    args = (tmp_path / 'args.txt').read_text().splitlines()
    assert {'--ntasks=2', '--gres=gpu:2', '--ntasks-per-node=2', '--cpus-per-task=5'} <= set(args)


@pytest.mark.parametrize('script', SCRIPTS)
def test_too_few_arguments(script, tmp_path):
    result = run_script(script, 'one', folder=tmp_path)
    assert result.returncode == 2 and result.stderr.startswith('usage: ') and script in result.stderr


@pytest.mark.parametrize('script', SCRIPTS)
def test_scripts_can_be_run(script):
    assert os.access(ROOT / 'tools' / script, os.X_OK)
