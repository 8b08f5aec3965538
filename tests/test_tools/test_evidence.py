"""The evidence: what is trained, that nothing is trained twice, how claims are judged, and the page."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

import mmengine
import pytest
from mmengine.config import Config, DictAction
from run_helpers import ROOT, TINY, tool_command, tool_env

from mmstvit.apis.twins import dense_twin
from mmstvit.cli.evidence import claims, measure, store
from mmstvit.cli.evidence.claims import HELD, NOT_HELD, NOT_TESTABLE, Score
from mmstvit.cli.evidence.command import main, write_page
from mmstvit.cli.evidence.measure import TWINS, Measurements
from mmstvit.cli.evidence.plan import MINUTES, PAIRS, SEEDS, STUDY, Run, option_args, plan
from mmstvit.cli.evidence.report import render
from mmstvit.cli.evidence.runs import Crew, Estimate, duration
from mmstvit.layers.steps import Generation
from mmstvit.registry import MODELS

# In place of tools/train.py and tools/test.py: notes each call, and fails or waits where a file says so.
FAKE = """
import json, os, sys, time
from pathlib import Path
tool, root = Path(__file__).stem, Path(__file__).parent.parent
config, folder = Path(sys.argv[1]), Path(sys.argv[sys.argv.index('--work-dir') + 1])
with (root / 'calls.txt').open('a') as calls:
    calls.write(' '.join([tool, *sys.argv[1:], 'OMP_NUM_THREADS=' + os.environ['OMP_NUM_THREADS']]) + '\\n')
folder.mkdir(parents=True, exist_ok=True)
if tool == 'train':
    begun = sorted(folder.glob('epoch_*.pth'))
    for epoch in range(len(begun) + 1, 4):
        (folder / f'epoch_{epoch}.pth').write_text('x')
        (folder / 'last_checkpoint').write_text(str(folder / f'epoch_{epoch}.pth'))
        if (root / 'wait').exists():
            time.sleep(60)
        if (root / f'fail_{folder.name}').exists():
            sys.exit('error: this was to be')
else:
    Path(sys.argv[sys.argv.index('--out') + 1]).write_text(json.dumps({'accuracy/top1': 90.0 + len(folder.parts[-2])}))
"""
CONFIG = 'width = 1\nrandomness = dict(seed=0)\nmodel = dict(backbone=dict(stgm_layer=2))\n'
NAMES = ('stvit-tiny_digits', 'vit-tiny_digits')


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A checkout with two configs and tools that only take notes."""
    for folder in ('tools', 'configs/digits'):
        (tmp_path / folder).mkdir(parents=True)
    for tool in ('train', 'test'):
        (tmp_path / 'tools' / f'{tool}.py').write_text(FAKE)
    for name in NAMES:
        (tmp_path / 'configs/digits' / f'{name}.py').write_text(CONFIG)
    for module in ('store', 'runs'):
        monkeypatch.setattr(f'mmstvit.cli.evidence.{module}.package_data', lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def work(place, runs, jobs=1):
    """Carry out runs; returns what failed, the lines that were said, and the calls of the tools."""
    said, calls = [], place / 'calls.txt'
    calls.unlink(missing_ok=True)
    failures = Crew(place / 'w', jobs, said.append).carry_out(runs)
    return failures, said, calls.read_text().splitlines() if calls.exists() else []


# What is trained


def test_every_pair_has_three_seeds():
    runs = plan()
    assert len({run.name for run in runs}) == len(runs)
    for pair in PAIRS:
        for config in pair.configs:
            assert [r.seed for r in runs if r.config == config and not r.options] == list(SEEDS)
            assert config in MINUTES and (ROOT / 'configs/digits' / f'{config}.py').is_file()


def test_study_changes_one_setting_at_a_time():
    assert {f.title: [label for label, _ in f.values] for f in STUDY} == {
        'semantic tokens': ['4', '9', '16', '36'],
        'STGM after layer': ['1', '2', '3', '4'],
        'pooling': ['max', 'avg'],
        'global centres G': ['with', 'without'],
        'shortcut': ['on', 'off'],
    }
    for factor in STUDY:
        default = Config.fromfile(ROOT / 'configs/digits' / f'{factor.config}.py')
        for label, value in factor.values:
            cfg = store.read_config(Run(factor.config, 0, factor.options(label)))
            backbone = MODELS.build({k: v for k, v in cfg.model.backbone.items() if k != 'init_cfg'})
            changed = {k for k, v in cfg.model.backbone.items() if default.model.backbone.get(k) != v}
            assert changed == (set() if label == factor.default else {factor.option.rpartition('.')[2]})
            if factor.title == 'semantic tokens':
                (step,) = (step for step in backbone.encoder.steps if isinstance(step, Generation))
                assert step.cells == value and value[0] * value[1] == int(label)
            elif factor.title == 'STGM after layer':
                assert [isinstance(step, Generation) for step in backbone.encoder.steps].index(True) == value
    trials = [run for run in plan(1) if run.options]
    assert len(trials) == 3 + 3 + 1 + 1 + 1 and {run.seed for run in trials} == {0}
    assert {run.seed for run in plan() if run.options} == set(SEEDS)


def test_options_come_back_from_the_command_line():
    import argparse

    for run in plan():
        parser = argparse.ArgumentParser()
        parser.add_argument('--cfg-options', nargs='+', action=DictAction)
        assert parser.parse_args(option_args(run.overrides)).cfg_options == run.overrides


def test_full_size_twins_are_dense():
    for twins in TWINS:
        if 'rcnn' in twins.config:
            pytest.importorskip('mmcv._ext')
        cfg = Config.fromfile(ROOT / 'configs' / twins.config)
        backbone = dense_twin(cfg).model.backbone
        assert backbone.arch == cfg.model.backbone.arch
        assert backbone.get('semantic_grid', 0) is None or backbone.get('semantic_size', 0) is None


# Carrying out


def test_finished_runs_are_not_repeated_and_changed_ones_are(place):
    runs = [Run(name, seed) for name in NAMES for seed in (0, 1)]
    failures, said, calls = work(place, runs, jobs=2)
    assert not failures and len(calls) == 8
    assert all('randomness.seed=' in call for call in calls)
    result = json.loads((place / 'w/results/vit-tiny_digits_seed-1.json').read_text())
    assert result['metrics'] == {'accuracy/top1': 90.0 + len('vit-tiny_digits_seed-1')}
    assert result['command'] == (
        'python tools/train.py configs/digits/vit-tiny_digits.py --cfg-options randomness.seed=1'
    )
    assert (result['config'], result['seed'], result['options']) == ('configs/digits/vit-tiny_digits.py', 1, {})
    assert result['commit'] and result['seconds'] > 0 and result['memory'] > 2**20 and result['versions']['torch']
    assert [p.name for p in (place / 'w/runs/vit-tiny_digits_seed-1').glob('*.pth')] == ['epoch_3.pth']

    failures, said, calls = work(place, runs)
    assert not failures and calls == [] and '4 finished before, 0 to do' in said[0]

    (place / 'configs/digits/vit-tiny_digits.py').write_text(CONFIG.replace('width = 1', 'width = 2'))
    assert len(store.read_runs(place / 'w', runs, said.append)) == 2 and 'its config has changed' in said[-1]
    failures, said, calls = work(place, runs)
    assert sorted(call.split()[0] for call in calls) == ['test', 'test', 'train', 'train']
    assert all('vit-tiny_digits_seed' in call and 'stvit' not in call for call in calls)
    assert len(store.read_runs(place / 'w', runs, said.append)) == 4


def test_results_beside_the_page_are_taken_up_in_a_fresh_checkout(place):
    """Runs that the kept page has are not trained again, figures not taken again; what is newer here stays."""
    runs = [Run('stvit-tiny_digits', 0), Run('stvit-tiny_digits', 1)]
    work(place, runs)
    kept = dict(
        runs=[json.loads(store.result_path(place / 'w', run).read_text()) for run in runs],
        measured={'cost_a': dict(name='cost_a', key='k', multiply_adds=1)},
    )
    store.write_json(place / 'docs/evidence.json', kept)
    shutil.rmtree(place / 'w')
    store.write_json(store.result_path(place / 'w', runs[1]), {**kept['runs'][1], 'seconds': 1.5})
    main(['--list', '--work-dir', str(place / 'w')])
    assert work(place, runs)[2] == []
    assert store.read_json(place / 'w/measured/cost_a.json') == kept['measured']['cost_a']
    assert store.read_json(store.result_path(place / 'w', runs[1]))['seconds'] == 1.5


def test_options_make_another_run(place):
    plain, other = Run('stvit-tiny_digits', 0), Run('stvit-tiny_digits', 0, {'model.backbone.stgm_layer': 3})
    assert other.name == 'stvit-tiny_digits_stgm_layer-3_seed-0'
    _, _, calls = work(place, [plain, other])
    assert len(calls) == 4 and sum('model.backbone.stgm_layer=3' in call for call in calls) == 2


def test_failed_run_is_told_and_goes_on_next_time(place):
    runs = [Run('stvit-tiny_digits', 0), Run('vit-tiny_digits', 0)]
    (place / 'fail_stvit-tiny_digits_seed-0').touch()
    failures, said, calls = work(place, runs)
    assert list(failures) == ['stvit-tiny_digits_seed-0'] and len(calls) == 3
    log = place / 'w/runs/stvit-tiny_digits_seed-0/train.txt'
    assert 'error: this was to be' in failures['stvit-tiny_digits_seed-0'] and str(log) in '\n'.join(said)
    assert 'error: this was to be' in log.read_text()
    before = json.loads((log.parent / 'evidence.json').read_text())['seconds']

    (place / 'fail_stvit-tiny_digits_seed-0').unlink()
    failures, said, calls = work(place, runs)
    assert not failures and len(calls) == 2
    assert '--resume' in calls[0] and len(list(log.parent.glob('*.pth'))) == 1
    result = json.loads((place / 'w/results/stvit-tiny_digits_seed-0.json').read_text())
    assert result['seconds'] > before > 0  # of both attempts


def test_checkpoints_of_another_config_are_no_start(place):
    run = Run('stvit-tiny_digits', 0)
    (place / f'fail_{run.name}').touch()
    work(place, [run])
    (place / f'fail_{run.name}').unlink()
    (place / 'configs/digits/stvit-tiny_digits.py').write_text(CONFIG + 'depth = 3\n')
    stale = place / 'w/runs' / run.name / 'stale'
    stale.touch()
    assert work(place, [run])[0] == {} and not stale.exists()


def test_missing_config_and_data_are_failures_of_their_runs_alone(place):
    (place / 'configs/digits/vit-tiny_digits.py').write_text(CONFIG + "prepare_data = 'python tools/make.py'\n")
    (place / 'tools/make.py').write_text("import sys; sys.exit('error: no room')")
    runs = [Run('swin_digits', 0), Run('vit-tiny_digits', 0), Run('stvit-tiny_digits', 0)]
    failures, said, calls = work(place, runs)
    assert set(failures) == {'swin_digits_seed-0', 'vit-tiny_digits_seed-0'} and len(calls) == 2
    assert 'no config' in failures['swin_digits_seed-0'] and any('error: no room' in line for line in said)


def test_jobs_share_the_cores(place, monkeypatch):
    monkeypatch.setattr('mmstvit.cli.evidence.runs.cores', lambda: 5)
    _, _, calls = work(place, [Run('stvit-tiny_digits', 0)], jobs=2)
    assert all(call.endswith('OMP_NUM_THREADS=2') for call in calls)


def test_stop_ends_the_trainings(place):
    """Ctrl-C in the middle: the process of the training is gone, and its run is not taken for finished."""
    (place / 'wait').touch()
    crew = Crew(place / 'w', 2, lambda line: None, interval=0.2)
    started = []

    def interrupt(*args):
        if crew.processes:
            started.extend(crew.processes)
            raise KeyboardInterrupt

    crew._progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        crew.carry_out([Run('stvit-tiny_digits', 0), Run('vit-tiny_digits', 0)])
    assert started and all(process.returncode for process in started)
    assert not list((place / 'w').glob('results/*.json'))


def test_one_command_at_a_time(tmp_path):
    with store.exclusive(tmp_path):
        with pytest.raises(store.Busy, match='is at work'), store.exclusive(tmp_path):
            pass
    with store.exclusive(tmp_path):
        pass


def test_estimate():
    swin, vit = Run('swin_digits', 0), Run('vit-tiny_digits', 0)
    stated = 60 * MINUTES['swin_digits']
    assert Estimate().seconds(swin) == stated
    # Twice as slow as stated: so will be the others.
    slow = Estimate([(vit, 120.0 * MINUTES['vit-tiny_digits'])])
    assert slow.seconds(swin) == 2 * stated
    known = Estimate([(Run('swin_digits', 1), 100.0), (Run('swin_digits', 2), 140.0)])
    assert known.seconds(swin) == 120
    assert known.remaining([swin, Run('swin_digits', 3)], [], 2) == 120
    assert known.remaining([swin], [100.0], 1) == 220
    assert known.remaining([], [100.0, 10.0], 2) == 100
    assert known.left(swin, 20.0) == 100
    assert known.left(swin, 500.0) == 0  # late, but never below nothing
    assert known.left(swin, 500.0, 0.25) == 1500  # what it has done tells more
    assert (duration(59), duration(3700)) == ('1 min', '1 h 02 min')


def test_real_commands(tmp_path, monkeypatch):
    """The real tools train, test and go on; one epoch of a tiny network."""
    (tmp_path / 'configs/digits').mkdir(parents=True)
    (tmp_path / 'tools').symlink_to(ROOT / 'tools')
    text = TINY.replace('max_epochs=4', 'max_epochs=1').replace('indices=600', 'indices=100')
    (tmp_path / 'configs/digits/stvit-tiny_digits.py').write_text(text)
    for module in ('store', 'runs'):
        monkeypatch.setattr(f'mmstvit.cli.evidence.{module}.package_data', lambda: tmp_path)
    run = Run('stvit-tiny_digits', 3)
    crew = Crew(tmp_path / 'w', 1, print)
    crew.threads = 1
    assert crew.carry_out([run]) == {}
    result = json.loads(store.result_path(tmp_path / 'w', run).read_text())
    assert 0 <= result['metrics']['accuracy/top1'] <= 100
    dumped = Config.fromfile(tmp_path / 'w/runs/stvit-tiny_digits_seed-3/stvit-tiny_digits.py')
    assert dumped.randomness.seed == 3


# Judging


def test_spread():
    found = Score((98.0, 99.0, 99.5))
    assert found.mean == pytest.approx(98.8333, abs=1e-3) and found.spread == 0.75 and found.whole
    assert not Score((98.0, 99.0)).whole


def test_same_and_up_at_their_borders():
    dense = Score((98.0, 98.5, 99.0))  # 98.5, spread 0.5
    narrow = lambda mean: Score((mean,) * 3)  # noqa: E731
    assert claims.judge_same(narrow(98.0), dense) == HELD
    assert claims.judge_same(narrow(97.99), dense) == NOT_HELD
    assert claims.judge_same(Score((96.5, 97.5, 98.5)), dense) == HELD  # the larger spread counts, here its own
    assert claims.judge_up(narrow(99.0), dense) == NOT_HELD  # within the spread
    assert claims.judge_up(narrow(99.01), dense) == HELD
    assert claims.judge_up(narrow(100.0), Score((99.0, 99.5, 100.0))) == NOT_TESTABLE  # no room above the spread
    assert claims.judge_up(narrow(100.0), narrow(100.0)) == NOT_TESTABLE


def test_shares_and_speeds_at_their_borders():
    assert claims.judge_fewer([0.6, 0.55], 0.55, strictly=False) == HELD
    assert claims.judge_fewer([0.6, 0.549], 0.55, strictly=False) == NOT_HELD
    assert claims.judge_fewer([0.31, 1 - 0.7], 0.30, strictly=True) == NOT_HELD
    assert claims.judge_faster([2.01, 2.0], 2.0, strictly=True) == NOT_HELD
    assert claims.judge_faster([2.01], 2.0, strictly=True) == HELD
    assert claims.judge_faster([1.15], 1.15, strictly=False) == HELD


def test_published_figures_at_their_borders():
    assert claims.agrees(1.15, '1.1') and not claims.agrees(1.151, '1.1')  # half a unit of the last digit
    assert claims.agrees(50.6, '49.626') and not claims.agrees(50.62, '49.626')  # 2 %


# The page


def made_evidence(tops=None, ratio=2.5):
    """Results as the commands leave them, with numbers of no meaning."""
    tops = tops or {}
    runs = []
    for run in plan(study_seeds=1):
        first, second = tops.get(run.config, (99.0, 99.2, 99.4))[run.seed], 0.75 + run.seed / 100
        metrics = {'accuracy/top1': first, 'acc/top1': first / 100, 'coco/bbox_mAP': second, 'coco/segm_mAP': 0.8}
        command = f'python tools/train.py configs/digits/{run.config}.py --cfg-options randomness.seed={run.seed}'
        runs.append(
            dict(
                name=run.name, config=f'configs/digits/{run.config}.py', options=run.options, seed=run.seed,
                config_hash='0', metrics=metrics, command=command, commit='abc123', seconds=90.0, memory=2**30,
                threads=1, jobs=2, cpu='a CPU', versions={'torch': '2.12'},
            )
        )  # fmt: skip
    measured = {}
    for run in runs:
        name = run['name'].rpartition('_seed-')[0]
        dense = name in [pair.dense for pair in PAIRS]
        measured[f'cost_{name}'] = dict(multiply_adds=20e6 if dense else 12e6, backbone=10e6, parameters=1e6)
    environment = dict(device='a CPU', threads=2, dtype='float32', rounds=11)
    spread = dict(median=ratio, low=ratio - 0.1, high=ratio + 0.1)
    row = dict(batch_size=16, images_per_second=spread, ratio=spread, peak_memory=2**24)
    for pair in PAIRS:
        results = [dict(row, network=config) for config in pair.configs]
        measured[f'speed_{pair.dense}'] = dict(environment=environment, results=results)
    for twins in TWINS:
        name = twins.name.replace(' ', '-')
        measured[f'full_{name}'] = dict(size=list(twins.size), semantic=4e9, dense=1e10)
        if twins.timed:
            measured[f'speed_{name}'] = dict(environment=environment, results=[dict(row, network=name)])
    for name in measure.PUBLISHED:
        measured[f'published_{name}'] = dict(parameters=21.5e6, multiply_adds=4.8e9)
    return dict(runs=runs, measured=measured)


def verdict_of(evidence, claim):
    found = [v for v in claims.verdicts(evidence) if claim in v.claim]
    assert len(found) == 1
    return found[0]


def test_verdicts_follow_the_numbers():
    worse = made_evidence({'stvit-tiny_digits': (97.0, 97.1, 97.2)}, ratio=1.9)
    assert verdict_of(made_evidence(), 'keeps its accuracy').verdict == HELD
    assert verdict_of(worse, 'keeps its accuracy').verdict == NOT_HELD
    assert verdict_of(made_evidence(), 'more than 100 % faster').verdict == HELD
    assert verdict_of(worse, 'more than 100 % faster').verdict == NOT_HELD
    assert verdict_of(worse, 'nearly 60 % fewer FLOPs').verdict == HELD
    assert verdict_of(worse, 'T2T-ViT-14: 21.5').verdict == HELD
    assert verdict_of(worse, 'T2T-ViT-24: 64.1').verdict == NOT_HELD
    assert verdict_of(worse, 'mask AP 44.7').verdict == NOT_TESTABLE
    fewer = made_evidence()
    fewer['measured']['full_dense-STViT-R-S']['semantic'] = 7e9  # 30 %, and over 30 is claimed
    assert verdict_of(fewer, 'down by over 30 %').verdict == NOT_HELD


def test_nothing_is_judged_on_a_part():
    evidence = made_evidence()
    evidence['runs'] = [run for run in evidence['runs'] if run['name'] != 'vit-tiny_digits_seed-2']
    del evidence['measured']['speed_STViT-S']
    for claim in ('keeps its accuracy', 'more than 100 % faster'):
        assert verdict_of(evidence, claim).verdict == NOT_TESTABLE
    nothing = dict(runs=[], measured={})
    assert {v.verdict for v in claims.verdicts(nothing)} == {NOT_TESTABLE}
    assert 'not run' in render(nothing, [])


def test_page(tmp_path):
    evidence = made_evidence({'stvit-tiny_digits': (98.0, 98.7, 98.9)})
    write_page(evidence, tmp_path / 'evidence.md')
    page = (tmp_path / 'evidence.md').read_text()
    assert '98.5 ± 0.5 (98.0, 98.7, 98.9)' in page
    assert '76.0 ± 1.0 (75.0, 76.0, 77.0)' in page  # AP in per cent
    assert '98.0 (one seed)' in page  # of the study
    assert '12.00 M (0.60 x)' in page and '2.50 (2.40 - 2.60)' in page
    assert '`python tools/train.py configs/digits/swin_digits.py --cfg-options randomness.seed=0`' in page
    rows = [line for line in page.splitlines() if line.startswith('| STViT | ')]
    assert len(rows) == 5 and all(re.search('held here|not testable here', row) for row in rows)
    for pair in PAIRS:
        assert all(f'../configs/digits/{config}.py' in page for config in pair.configs)
    for picture in re.findall(r'\]\(images/(\S+)\)', page):
        assert 5_000 < (tmp_path / 'images' / picture).stat().st_size < 60_000
    assert page.count('](images/') == 2
    # From the JSON file alone comes the same page.
    (tmp_path / 'evidence.json').write_text(json.dumps(evidence))
    (tmp_path / 'evidence.md').unlink()
    main(['--page-only', '--out', str(tmp_path / 'evidence.md')])
    assert (tmp_path / 'evidence.md').read_text() == page


def test_page_in_the_checkout_is_the_one_of_its_results():
    page, kept = (ROOT / 'docs/evidence.md').read_text(), (ROOT / 'docs/evidence.json').read_text()
    assert page == render(json.loads(kept), re.findall(r'\]\(images/(\S+)\)', page))


def test_metafile_has_the_means_of_all_seeds():
    runs = json.loads((ROOT / 'docs/evidence.json').read_text())['runs']
    entries = {m['Name']: m for m in mmengine.load(ROOT / 'configs/digits/metafile.yml')['Models']}
    for pair in PAIRS:
        for config in pair.configs:
            told = [value for result in entries[config]['Results'] for value in result['Metrics'].values()]
            for (key, _, unit), value in zip(pair.metrics, told, strict=True):
                own = [run['metrics'][key] for run in runs if run['name'] in {f'{config}_seed-{s}' for s in SEEDS}]
                assert len(own) == len(SEEDS)
                digits = 3 if value < 1 else 2
                assert value == round(statistics.mean(own) * (1 if value < 1 else unit), digits), config


# Measuring


def test_measurements_are_kept(tmp_path, monkeypatch):
    pair = PAIRS[0]
    for name, value in (('PAIRS', (pair,)), ('STUDY', ()), ('PUBLISHED', {}), ('TWINS', ())):
        monkeypatch.setattr(measure, name, value)
    monkeypatch.setattr(measure, 'DIGITS_TIMING', (1, 1))
    said = []
    found, failures = Measurements(tmp_path, said.append).take()
    assert failures == {} and len(said) == 3
    # As configs/digits/README.md has them: 12.1 and 22.2 M.
    costs = [measure.cost_of(found, config)['multiply_adds'] for config in pair.configs]
    assert costs == pytest.approx([12.1e6, 22.2e6], rel=0.01)
    speed = measure.speed_of(found, pair.dense, pair.semantic[0])
    assert speed['batch_size'] == 1 and speed['images_per_second']['median'] > 0
    assert measure.speed_of(found, pair.dense, pair.dense)['ratio']['median'] == 1
    again, _ = Measurements(tmp_path, said.append).take()
    assert again == found and len(said) == 3
    Measurements(tmp_path, said.append, again=True, timing=False).take()
    assert len(said) == 5  # counted anew, not timed


def test_failed_measurement_is_told(tmp_path, monkeypatch):
    for name, value in (('PAIRS', ()), ('STUDY', ()), ('PUBLISHED', {'X': 'digits/absent.py'}), ('TWINS', ())):
        monkeypatch.setattr(measure, name, value)
    found, failures = Measurements(tmp_path, print).take()
    assert found == {} and list(failures) == ['absent']


# The command


def test_list(capsys, place):
    main(['--list', '--only', 'vit-tiny', '--work-dir', str(place / 'w')])
    out = capsys.readouterr().out
    assert 'stvit-tiny_digits_pooling-avg_seed-0: about 2 min' in out and 'swin' not in out
    assert "python tools/train.py configs/digits/stvit-tiny_digits.py --cfg-options randomness.seed=0 'model" in out


@pytest.mark.parametrize(
    'args, line',
    [
        (['--only', 'nothing'], 'no run has it in its name'),
        (['--jobs', '0'], 'at least 1'),
        (['--study-seeds', '4'], '1 to 3'),
        (['--list', '--page-only'], 'give one of'),
        (['--only', 'x', '--report-only'], 'has no effect'),
        (['--measure-again', '--list'], 'has no effect'),
        (['--out', 'page.txt'], r'name it \*.md'),
        (['--page-only'], 'there are no results in docs/evidence.json'),
    ],
)
def test_wrong_arguments(args, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    assert re.search(line, capsys.readouterr().err)


def test_terminated_command_ends_its_trainings(place):
    """SIGTERM to the command: the training goes too, and what it held is free."""
    (place / 'wait').touch()
    code = (
        'import sys; from pathlib import Path; from mmstvit.cli.evidence import command, runs, store\n'
        'runs.package_data = store.package_data = lambda: Path(sys.argv[1]); command.main(sys.argv[2:])'
    )
    args = [sys.executable, '-c', code, str(place), '--only', 'vit-tiny_digits_seed-0', '--work-dir', str(place / 'w')]
    process = subprocess.Popen(args, env=tool_env(), cwd=place)
    calls = place / 'calls.txt'
    while not calls.exists() and process.poll() is None:
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=60) == 130
    with store.exclusive(place / 'w'):
        pass


def test_help_is_reached_by_the_tool():
    result = subprocess.run(
        tool_command('analysis_tools/evidence.py', '--help'), capture_output=True, text=True, env=tool_env()
    )
    assert result.returncode == 0 and '--study-seeds' in result.stdout
    assert os.access(ROOT / 'tools/analysis_tools/evidence.py', os.R_OK)
