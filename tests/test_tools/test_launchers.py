"""The scripts that start several processes, with two processes on a CPU and with a Slurm that only takes notes."""

import os
import pickle
import re
import socket
import subprocess
import sys

import pytest
from run_helpers import ROOT, read_scalars, tool_env

SCRIPTS = ('dist_train.sh', 'dist_test.sh', 'slurm_train.sh')


def run_script(script, *args, folder, path=None, **env):
    env = tool_env(PYTHON=sys.executable, **env)
    if path:
        env['PATH'] = f'{path}{os.pathsep}{env["PATH"]}'
    command = ['bash', str(ROOT / 'tools' / script), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def test_two_processes_train(tiny_config, tmp_path):
    options = ('train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=400')
    result = run_script(
        'dist_train.sh', tiny_config, 2, '--work-dir', tmp_path / 'w', '--cfg-options', *options,
        folder=tmp_path, PORT=free_port(),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'GPU number: 2' in result.stdout
    # 400 images in batches of 20 are 20 iterations for one process and 10 for each of two.
    assert [line['step'] for line in read_scalars(tmp_path / 'w') if 'loss' in line] == [10]
    assert [line for line in read_scalars(tmp_path / 'w') if 'accuracy/top1' in line]


def test_two_processes_test_as_one(trained, tmp_path):
    """Each image is predicted once, and the accuracy is that of one process."""
    result = run_script(
        'dist_test.sh', trained.config, trained.checkpoint, 2, '--work-dir', tmp_path / 'w', '--out', 'out.pkl',
        folder=tmp_path, PORT=free_port(),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'GPU number: 2' in result.stdout
    assert re.findall(r'accuracy/top1: ([\d.]+)', result.stdout) == [f'{trained.top1:.4f}']
    predictions = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    correct = [int(p['pred_score'].argmax() == p['gt_label']) for p in predictions]
    assert len(correct) == 150 and 100 * sum(correct) / 150 == pytest.approx(trained.top1, abs=1e-4)


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
