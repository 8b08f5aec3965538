"""What a run prints before its first number fits on a screen; with --quiet it prints a line an epoch."""

import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import HistoryBuffer
from run_helpers import read_scalars

from mmstvit.cli.test import main as evaluate
from mmstvit.cli.train import main as train
from mmstvit.engine.progress import EpochLines
from mmstvit.engine.terminal import parameter_table

pytestmark = pytest.mark.filterwarnings('ignore:.*has been created')

LINES, COLUMNS = 24, 80
EPOCH = re.compile(r'epoch +(\d+)/(\d+) \[(#*-*)\] ')


def log_of(work_dir):
    return max(Path(work_dir).glob('*/*.log')).read_text()


def lines_on_screen(text):
    return sum(max(-(-len(line) // COLUMNS), 1) for line in text.splitlines())


@pytest.mark.parametrize('toolbox', ['tiny_config', 'detection', 'video'])
def test_first_numbers_are_on_the_first_screen(toolbox, request, tmp_path, capfd):
    config = request.getfixturevalue(toolbox)
    options = ['default_hooks.logger.interval=1', 'train_cfg.max_epochs=1']
    options += ['train_dataloader.dataset.times=1'] if toolbox == 'detection' else []
    options += ['train_dataloader.dataset.indices=40'] if toolbox == 'tiny_config' else []
    capfd.readouterr()
    train([str(getattr(config, 'config', config)), '--work-dir', str(tmp_path), '--cfg-options', *options])
    before, numbers, _ = capfd.readouterr().out.partition('Epoch(train)')
    assert numbers and 0 < lines_on_screen(before) <= LINES
    log = log_of(tmp_path)
    for everything in ('Config:\n', 'System environment', 'Hooks will be executed'):
        assert everything in log and everything not in before
    assert 'learning rate' in before and 'training: ' in before and 'validation: ' in before


def test_parameters_are_summed_up_and_each_is_in_the_log(tiny_config, tmp_path, capfd):
    train([str(tiny_config), '--work-dir', str(tmp_path), '--cfg-options', 'train_cfg.max_epochs=1'])
    out, log = capfd.readouterr().out, log_of(tmp_path)
    assert 'paramwise_options' not in out and len(re.findall('paramwise_options -- ', log)) > 20
    assert len(re.findall(r'^ *[\d,]+ +\d+ +0\.\d+ +0(\.05)?$', out, re.M)) == 2


def test_test_prints_little_before_its_numbers(trained, tmp_path, capfd):
    capfd.readouterr()
    evaluate([str(trained.config), str(trained.checkpoint), '--work-dir', str(tmp_path)])
    before, numbers, _ = capfd.readouterr().out.partition('Epoch(test)')
    assert numbers and lines_on_screen(before) <= LINES and 'test: 150 samples of 10 classes' in before
    assert 'Config:\n' in log_of(tmp_path)


# ----------------------------------------------------------------------------------------------------------- quiet
@pytest.mark.parametrize('toolbox', ['tiny_config', 'detection', 'video'])
def test_quiet(toolbox, request, tmp_path, capfd):
    """One line an epoch and nothing else, with the numbers that are logged."""
    config = request.getfixturevalue(toolbox)
    options = ['default_hooks.logger.interval=1', 'train_cfg.max_epochs=2']
    options += ['train_dataloader.dataset.times=1'] if toolbox == 'detection' else []
    options += ['train_dataloader.dataset.indices=40'] if toolbox == 'tiny_config' else []
    capfd.readouterr()
    config = str(getattr(config, 'config', config))
    train([config, '--quiet', '--work-dir', str(tmp_path), '--cfg-options', *options])
    head, *lines = capfd.readouterr().out.splitlines()[-3:]
    assert '2 epochs' in head and [EPOCH.match(line).groups()[:2] for line in lines] == [('1', '2'), ('2', '2')]
    assert [EPOCH.match(line)[3].count('#') for line in lines] == [10, 20]
    assert ' left' in lines[0] and ' left' not in lines[1]
    validations = [line for line in read_scalars(tmp_path) if not any('loss' in key for key in line)]
    for line, logged in zip(lines, validations, strict=True):
        name, value = re.search(r'  (\w+/\w+) (\S+)', line).groups()
        assert float(value) == pytest.approx(logged[name], rel=1e-3)
    losses = [line['loss'] for line in read_scalars(tmp_path) if 'loss' in line]
    told = [float(re.search(r'loss (\S+)', line)[1]) for line in lines]
    assert len(losses) >= 4 and sum(told) / 2 == pytest.approx(
        losses[-1], rel=2e-3
    )  # which is the mean of the last ten
    log = log_of(tmp_path)
    assert 'Config:\n' in log and len(re.findall(r'Epoch\(train\)', log)) == len(losses)


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_training_by_iteration_in_a_terminal():
    """The line that grows is drawn in its place, and a training without validation has twenty."""
    history = HistoryBuffer()
    runner = SimpleNamespace(
        train_loop=None,
        val_loop=None,
        iter=0,
        max_iters=100,
        experiment_name='it',
        logger=SimpleNamespace(log_file='it.log'),
        message_hub=SimpleNamespace(log_scalars={'train/loss': history}),
    )
    screen = Screen()
    lines = EpochLines(screen)
    lines.before_train(runner)
    for i in range(100):
        lines.before_train_iter(runner, i)
        history.update(float(i))
        lines.after_train_iter(runner, i)
        runner.iter += 1
    lines.after_train_epoch(runner)
    lines.end()
    told = re.findall(r'iteration +(\d+)/100 \[#*-*\] [^\r]*  loss (\S+)\x1b\[K\n', screen.getvalue())
    assert [int(number) for number, _ in told] == list(range(5, 101, 5))
    assert [float(loss) for _, loss in told] == [i + 2.0 for i in range(0, 100, 5)]
    assert screen.getvalue().count('\r') >= 20


# ------------------------------------------------------------------------------------------------ parameter groups
def groups(number, decays):
    return [
        dict(params=[torch.zeros(10), torch.zeros(5)], lr=0.1 / 2**i, weight_decay=decay)
        for i in range(number)
        for decay in decays
    ]


def test_parameter_table():
    table = parameter_table(SimpleNamespace(param_groups=groups(1, (0.05, 0.05, 0)))).splitlines()
    assert [line.split() for line in table[1:]] == [['30', '4', '0.1', '0.05'], ['15', '2', '0.1', '0']]


def test_many_rates_are_summed_up():
    optimizers = dict(one=groups(8, (0.05, 0)), other=groups(8, (0.05,)))
    table = parameter_table(SimpleNamespace(param_groups=optimizers)).splitlines()
    assert [line.split() for line in table[1:]] == [
        ['240', '32', '0.00078125', 'to', '0.1', '0.05'],
        ['120', '16', '0.00078125', 'to', '0.1', '0'],
    ]
