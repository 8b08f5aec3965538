"""Trainings in a limited time: the pace of a trial, epochs that fit, and who is right on which image."""

import json

import numpy as np
import pytest
from mmengine.config import Config

from mmstvit.errors import UsageError
from projects.evidence.pace import SHARE, Pace, as_json, epochs_within, from_json, mean_paces, pace_of
from projects.evidence.plan import PAIRS, SEEDS, Run, config_file, plan
from projects.evidence.store import pack_right, read_config, unpack_right

RUNS = [Run(config, seed) for config in ('small', 'large') for seed in SEEDS]
CFGS = {
    config: Config(dict(train_cfg=dict(max_epochs=epochs), param_scheduler=[dict(end=5), dict(begin=5)]))
    for config, epochs in (('small', 80), ('large', 40))
}
PACES = {'small': Pace(epoch=4.0, start=10.0), 'large': Pace(epoch=10.0, start=12.0)}


def needed(epochs, jobs):
    """The time of all runs with their tests."""
    return sum(epochs[run.config] * PACES[run.config].epoch + 2 * PACES[run.config].start for run in RUNS) / jobs


def test_epochs_fill_the_time_and_end_in_it():
    for minutes in (6, 8, 10):
        epochs = epochs_within(60 * minutes, RUNS, CFGS, PACES, jobs=3)
        assert needed(epochs, 3) <= SHARE * 60 * minutes < needed({c: n + 1 for c, n in epochs.items()}, 3)
        assert epochs['small'] == pytest.approx(2 * epochs['large'], abs=1)
    assert epochs_within(60 * 60, RUNS, CFGS, PACES, jobs=3) == {'small': 80, 'large': 40}  # never more than wanted


def test_too_little_time_says_how_much_is_needed():
    with pytest.raises(UsageError, match='give (.*) minutes or more') as found:
        epochs_within(90, RUNS, CFGS, PACES, jobs=3)
    minutes = float(str(found.value).partition('give ')[2].split()[0])
    assert epochs_within(60 * (minutes + 0.05), RUNS, CFGS, PACES, jobs=3)['large'] == 6


def test_pace_is_read_where_the_trial_is_warm(tmp_path):
    folder = tmp_path / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    lines = [dict(time=0.5, loss=2.0, step=20), dict(time=0.1, loss=1.9, step=40), dict(time=0.04, loss=1.8, step=98)]
    (folder / 'scalars.json').write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    assert pace_of(tmp_path, 20.0) == Pace(3.92, 16.08)
    with pytest.raises(UsageError):
        pace_of(tmp_path / 'empty', 20.0)
    assert mean_paces([(RUNS[0], Pace(4, 10)), (RUNS[1], Pace(6, 20))]) == {'small': Pace(5, 15)}


def test_a_trial_counts_for_the_same_machine_and_number_of_jobs():
    kept = json.loads(json.dumps(as_json(PACES, 6, 'a GPU')))
    assert from_json(kept, 6, 'a GPU') == PACES
    assert from_json(kept, 1, 'a GPU') == from_json(kept, 6, 'another') == from_json(None, 6, 'a GPU') == {}


def test_who_is_right_is_kept_in_a_bit_each(tmp_path):
    right = np.random.default_rng(0).random(1003) < 0.9
    rows = [dict(pred_label=3 if hit else 4, gt_label=3) for hit in right]
    (tmp_path / 'rows.jsonl').write_text(''.join(f'{json.dumps(row)}\n' for row in rows))
    packed = pack_right(tmp_path / 'rows.jsonl')
    assert len(packed) < 200 and np.array_equal(unpack_right(packed), right)


def test_runs_of_the_gpu_tier():
    """Three seeds of each network; the epochs of a limited time change neither name nor what it is a run of."""
    runs = plan(tier='gpu')
    pairs = [pair for pair in PAIRS if pair.tier == 'gpu']
    assert len(runs) == len({run.name for run in runs}) == len(pairs) * 2 * len(SEEDS)
    for pair in pairs:
        (semantic, dense) = (read_config(Run(config, 0)) for config in pair.configs)
        assert semantic.train_cfg == dense.train_cfg and semantic.param_scheduler == dense.param_scheduler
        short = Run(pair.dense, 0, epochs=7)
        assert short.name == Run(pair.dense, 0).name and read_config(short).to_dict() == dense.to_dict()
        assert short.command_options == {'randomness.seed': 0, 'train_cfg.max_epochs': 7}
    assert config_file('deit-t_cifar10') == 'configs/cifar10/deit-t_cifar10.py'
