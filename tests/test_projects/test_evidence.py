"""The evidence: what is trained, that nothing is trained twice, how claims are judged, and the page."""

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import time

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config, DictAction
from run_helpers import ROOT, TINY, read_scalars, tool_env

from mmstvit.apis.baseline import dense_baseline
from mmstvit.layers.steps import Generation
from mmstvit.registry import MODELS
from projects.evidence import __main__ as command
from projects.evidence import claims, measure, runs, store
from projects.evidence.__main__ import main, write_page
from projects.evidence.claims import HELD, NO_EVIDENCE, NOT_HELD, NOT_TESTABLE, UNDECIDED
from projects.evidence.judge import Difference
from projects.evidence.measure import FULL_SIZE, Measurements
from projects.evidence.plan import MINUTES, PAIRS, SEEDS, TIERS, Run, config_file, option_args, plan
from projects.evidence.report import render
from projects.evidence.runs import Crew, Estimate

# What is trained


def test_every_pair_has_three_seeds():
    runs = plan()
    assert len({run.name for run in runs}) == len(runs)
    for pair in PAIRS:
        for config in pair.configs:
            assert [r.seed for r in runs if r.config == config and not r.options] == list(SEEDS)
            assert config in MINUTES and (ROOT / config_file(config)).is_file()


def test_each_tier_is_a_part_of_the_plan():
    parts = [run for tier in TIERS for run in plan(tier)]
    assert sorted(run.name for run in parts) == sorted(run.name for run in plan())
    for tier in TIERS:
        seeds = [run.seed for run in plan(tier) if not run.options]
        assert seeds == sorted(seeds) and set(seeds) == set(SEEDS)  # whole comparisons where it ends early


def test_the_tier_for_two_cores_takes_a_working_day():
    assert runs.Estimate([]).remaining(plan('cpu'), [], jobs=2) < 8 * 3600


def test_variants_have_the_tokens_and_the_place_they_are_of():
    (pair,) = (pair for pair in PAIRS if pair.variants)
    assert [run for run in plan() if run.options] == list(pair.study)  # the first seed alone
    found = {}
    for run in pair.trials[:-1]:
        cfg = store.read_config(run)
        with torch.device('meta'):
            backbone = MODELS.build({k: v for k, v in cfg.model.backbone.items() if k != 'init_cfg'})
        (step,) = (step for step in backbone.encoder.steps if isinstance(step, Generation))
        found[run.trial] = step.cells[0] * step.cells[1], list(backbone.encoder.steps).index(step)
    own = pair.semantic[0]
    tokens = {f'{own}_semantic_grid-{n}x{n}': (n * n, 1) for n in (2, 3, 6)}
    assert found == {own: (16, 1), **tokens, **{f'{own}_stgm_layer-{n}': (16, n) for n in (0, 2)}}


def test_options_come_back_from_the_command_line():
    for run in plan():
        parser = argparse.ArgumentParser()
        parser.add_argument('--cfg-options', nargs='+', action=DictAction)
        assert parser.parse_args(option_args(run.overrides)).cfg_options == run.overrides


def test_full_size_baselines_are_dense():
    for pair in FULL_SIZE:
        if 'rcnn' in pair.config:
            pytest.importorskip('mmdet')
        cfg = Config.fromfile(ROOT / 'configs' / pair.config)
        backbone = dense_baseline(cfg).model.backbone
        assert backbone.arch == cfg.model.backbone.arch
        assert backbone.get('reduce', 0) is None or backbone.get('semantic_size', 0) is None


# Carrying out

EPOCHS = 4


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A checkout with the real tools, a config of a small training, and one that cannot be trained."""
    configs = tmp_path / 'configs/digits'
    configs.mkdir(parents=True)
    (tmp_path / 'tools').symlink_to(ROOT / 'tools')
    text = TINY.replace('max_epochs=4', f'max_epochs={EPOCHS}').replace('indices=600', 'indices=100')
    (configs / 'stvit-tiny_digits.py').write_text(text)
    (configs / 'vit-tiny_digits.py').write_text(TINY + "model['backbone'].update(stgm_layer=77)\n")
    for module in ('store', 'runs'):
        monkeypatch.setattr(f'projects.evidence.{module}.package_data', lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMAND = """
import sys
from pathlib import Path
from projects.evidence import __main__ as command, runs, store
runs.package_data = store.package_data = Path
command.main(sys.argv[1:])
"""


@pytest.mark.long
def test_a_run_is_stopped_gone_on_with_finished_and_not_repeated(place):
    """SIGTERM to the command ends its training too; the same runs again go on, and failures are told of their own."""
    root, run = place / 'w', Run('stvit-tiny_digits', 0)
    folder = root / 'runs' / run.name
    args = [sys.executable, '-c', COMMAND, '--only', run.name, '--work-dir', str(root)]
    process = subprocess.Popen(args, env=tool_env(PYTHONPATH=str(ROOT)), cwd=place)
    while not (folder / 'epoch_1.pth').exists() and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGINT
    with store.exclusive(root):  # the training held it as well
        pass
    assert not store.result_path(root, run).exists()

    failing, missing = Run('vit-tiny_digits', 0), Run('swin_digits', 0)
    failures = Crew(root, 1, print).carry_out([missing, failing, run])
    assert set(failures) == {missing.name, failing.name}
    assert str(store.config_path(missing.config)) in failures[missing.name]
    assert 'stgm_layer=77' in failures[failing.name] and 'train.txt' in failures[failing.name]
    assert [line['epoch'] for line in read_scalars(folder) if 'loss' in line][0] > 1  # where it had stopped
    assert [path.name for path in folder.glob('*.pth')] == [f'epoch_{EPOCHS}.pth']
    path = store.result_path(root, run)
    result = json.loads(path.read_text())
    assert 0 <= result['metrics']['accuracy/top1'] <= 100
    assert result['seconds'] > 0 and result['memory'] > 2**20 and result['seed'] == 0

    before = path.stat()
    assert not Crew(root, 1, print).carry_out([run])
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert store.read_runs(root, [run], print) == [result]
    config = place / 'configs/digits/stvit-tiny_digits.py'
    config.write_text(config.read_text().replace('num_heads=2', 'num_heads=4'))
    assert store.read_runs(root, [run], print) == []


@pytest.mark.long
def test_data_that_no_program_makes_is_told_and_not_fetched(place):
    """The training's own line says where photographs are to be had."""
    for name in ('bccd', '_base_'):
        (place / 'configs' / name).symlink_to(ROOT / 'configs' / name)
    run = Run('faster-rcnn_swin_bccd', 0)
    failures = Crew(place / 'w', 1, print).carry_out([run])
    assert 'git clone --depth 1 https://github.com/Shenggan/BCCD_Dataset' in failures[run.name]
    assert not (place / 'data').exists()


def test_results_beside_the_page_are_taken_up_in_a_fresh_checkout(tmp_path):
    """Runs and figures that the kept page has are there; what is newer here stays."""
    runs = [dict(name=name, seconds=1.0) for name in ('one', 'two')]
    store.write_json(tmp_path / 'evidence.json', dict(runs=runs, measured=dict(cost_a=dict(name='cost_a', adds=1))))
    store.write_json(tmp_path / 'w/results/two.json', dict(runs[1], seconds=2.0))
    store.take_up(tmp_path / 'evidence.json', tmp_path / 'w')
    found = [store.read_json(tmp_path / f'w/{name}.json') for name in ('results/one', 'results/two', 'measured/cost_a')]
    assert found == [runs[0], dict(runs[1], seconds=2.0), dict(name='cost_a', adds=1)]
    store.take_up(tmp_path / 'evidence.json', tmp_path / 'w', replace=True)  # of another machine, to be added
    assert store.read_json(tmp_path / 'w/results/two.json') == runs[1]


def test_one_command_at_a_time(tmp_path):
    with store.exclusive(tmp_path):
        with pytest.raises(store.Busy), store.exclusive(tmp_path):
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


# Judging


def gap(low, high):
    return Difference((low + high) / 2, low, high, 3, 0.1)


def test_same_and_up_at_their_borders():
    ends = [(-0.5, 0.0), (-0.51, 0.1), (-0.51, 0.0), (-0.9, -0.01), (0.01, 0.3), (0.0, 0.3)]
    same = [claims.judge_same(gap(*pair)) for pair in ends]
    assert same == [HELD, UNDECIDED, UNDECIDED, NOT_HELD, HELD, HELD]
    up = [claims.judge_up(gap(*pair)) for pair in ends]
    assert up == [NOT_HELD, UNDECIDED, NOT_HELD, NOT_HELD, HELD, UNDECIDED]


def test_shares_and_speeds_at_their_borders():
    def judge(values, least, strictly):
        return claims.judge_share([(value, value) for value in values], least, strictly)

    assert judge([0.6, 0.55], 0.55, strictly=False) == HELD
    assert judge([0.6, 0.549], 0.55, strictly=False) == NOT_HELD
    assert judge([0.31, 1 - 0.7], 0.30, strictly=True) == NOT_HELD
    assert judge([2.01, 2.0], 2.0, strictly=True) == NOT_HELD
    assert judge([2.01], 2.0, strictly=True) == HELD
    assert judge([1.15], 1.15, strictly=False) == HELD
    # One size that may and may not reach it leaves the others' claim open, one that cannot ends it.
    assert claims.judge_share([(2.1, 2.2), (1.9, 2.3)], 2.0, strictly=True) == UNDECIDED
    assert claims.judge_share([(1.9, 2.3), (1.8, 2.0)], 2.0, strictly=True) == NOT_HELD
    assert claims.judge_share([(2.01, 2.3), (2.1, 2.4)], 2.0, strictly=True) == HELD


def test_published_figures_at_their_borders():
    assert claims.agrees(1.15, '1.1') and not claims.agrees(1.151, '1.1')  # half a unit of the last digit
    assert claims.agrees(50.6, '49.626') and not claims.agrees(50.62, '49.626')  # 2 %


# The page


def made_evidence(tops=None, ratio=2.5):
    """Results as the commands leave them, with numbers of no meaning."""
    tops = tops or {}
    runs = []
    for run in plan():
        usual = (86.0, 86.2, 86.4) if 'cifar' in run.config else (99.0, 99.2, 99.4)
        first, second = tops.get(run.config, usual)[run.seed], 0.75 + run.seed / 100
        metrics = {'accuracy/top1': first, 'acc/top1': first / 100, 'coco/bbox_mAP': second, 'coco/segm_mAP': 0.8}
        metrics['mIoU'] = 60 + run.seed
        runs.append(
            dict(
                name=run.name, config=config_file(run.config), options=run.options, seed=run.seed, config_hash='0',
                metrics=metrics, command='python', commit='abc123', seconds=90.0, memory=2**30, threads=1, jobs=2,
                cpu='a CPU', versions={'torch': '2.12'},
            )
        )  # fmt: skip
    measured = {}
    for run in runs:
        name = run['name'].rpartition('_seed-')[0]
        dense = name in [pair.dense for pair in PAIRS]
        measured[f'cost_{name}'] = dict(multiply_adds=30e6, backbone=20e6 if dense else 12e6, parameters=1e6)
    environment = dict(device='a CPU', threads=2, dtype='float32', rounds=11)
    spread = dict(median=ratio, low=ratio - 0.1, high=ratio + 0.1)
    row = dict(batch_size=16, images_per_second=spread, ratio=spread, peak_memory=2**24)
    for pair in PAIRS:
        results = [dict(row, network=config) for config in pair.configs]
        measured[f'speed_{pair.dense}'] = dict(environment=environment, results=results)
    for pair in FULL_SIZE:
        name = pair.name.replace(' ', '-')
        measured[f'full_{name}'] = dict(size=list(pair.size), semantic=4e9, dense=1e10)
        if pair.timed:
            measured[f'speed_{name}'] = dict(environment=environment, results=[dict(row, network=name)])
    for name in measure.PUBLISHED:
        measured[f'published_{name}'] = dict(parameters=21.5e6, multiply_adds=4.8e9)
    return dict(runs=runs, measured=measured)


def verdict_of(evidence, claim):
    found = [v for v in claims.verdicts(evidence) if claim in v.claim]
    assert len(found) == 1
    return found[0]


def test_verdicts_follow_the_numbers():
    kept = made_evidence({'deit-s_cifar10': (86.0, 86.2, 86.4)})
    worse = made_evidence({'stvit-s_cifar10': (83.0, 83.1, 83.5)}, ratio=1.85)
    unclear = made_evidence({'stvit-s_cifar10': (83.0, 86.1, 86.5)})
    claim = 'keeps its accuracy'
    assert [verdict_of(e, claim).verdict for e in (kept, worse, unclear)] == [HELD, NOT_HELD, UNDECIDED]
    up = made_evidence({'stvit-swin_cifar10': (87.0, 87.2, 87.4)})
    assert [verdict_of(e, 'slightly up').verdict for e in (up, kept)] == [HELD, NOT_HELD]
    assert verdict_of(kept, 'more than 100 % faster').verdict == HELD
    assert verdict_of(worse, 'more than 100 % faster').verdict == NOT_HELD
    assert verdict_of(worse, 'nearly 60 % fewer FLOPs').verdict == HELD
    fewer = made_evidence()
    fewer['measured']['full_STViT-R-S']['semantic'] = 7e9  # 30 %, and over 30 is claimed
    assert verdict_of(fewer, 'down by over 30 %').verdict == NOT_HELD
    assert verdict_of(made_evidence(ratio=2.05), 'more than 100 % faster').verdict == UNDECIDED
    fewer['measured']['full_STViT-R-S']['semantic'] = 6.9e9
    fewer['measured']['full_STViT-R-T']['semantic'] = 9e9  # a size that the authors have not
    assert verdict_of(fewer, 'down by over 30 %').verdict == HELD
    counts = claims.counts_beside_published(worse)
    assert 'T2T-ViT-14 21.5 M, 4.80 G, as published' in counts
    assert 'T2T-ViT-24 21.5 M, 4.80 G, published 64.1 M, 13.8 G' in counts


def test_a_claim_is_judged_on_photographs_where_there_are_some():
    """The digits are left, and are no evidence."""
    evidence = made_evidence()
    assert 'stvit-s_cifar10' in verdict_of(evidence, 'keeps its accuracy').finding
    evidence['runs'] = [run for run in evidence['runs'] if run['name'] != 'deit-s_cifar10_seed-2']
    assert 'stvit-t_cifar10' in verdict_of(evidence, 'keeps its accuracy').finding
    evidence['runs'] = [run for run in evidence['runs'] if 'cifar' not in run['name']]
    found = verdict_of(evidence, 'keeps its accuracy')
    assert found.verdict == NO_EVIDENCE and 'stvit-tiny_digits' in found.finding


def test_twins_are_compared_image_by_image_where_that_is_known():
    evidence, pair = made_evidence(), PAIRS[0]
    rng, answers = np.random.default_rng(0), {}
    for run in evidence['runs']:
        if run['name'].startswith(pair.configs):
            answers[run['name']] = rng.random(1000) < 0.8 + 0.1 * run['name'].startswith(pair.semantic)
            run['right'] = store.pack(answers[run['name']])
    found = claims.compare(evidence, pair.trials[0], pair.baseline, pair.metrics[0])
    gaps = [
        100 * (answers[f'{pair.semantic[0]}_seed-{s}'].mean() - answers[f'{pair.dense}_seed-{s}'].mean()) for s in SEEDS
    ]
    assert found.points == pytest.approx(np.mean(gaps)) and found.image_error > 0
    del evidence['runs'][0]['right']
    assert claims.compare(evidence, pair.trials[0], pair.baseline, pair.metrics[0]).image_error == 0


def test_further_seeds_count_once_both_twins_have_them():
    evidence, pair = made_evidence(), PAIRS[0]
    own, dense = (
        next(run for run in evidence['runs'] if run['name'] == twin.name) for twin in (pair.trials[0], pair.baseline)
    )
    before = claims.compare(evidence, pair.trials[0], pair.baseline, pair.metrics[0])
    better = {'accuracy/top1': dense['metrics']['accuracy/top1'] + 50}
    evidence['runs'].append(dict(own, name=f'{own["name"][:-1]}3', seed=3, metrics=better))
    assert claims.compare(evidence, pair.trials[0], pair.baseline, pair.metrics[0]) == before
    evidence['runs'].append(dict(dense, name=f'{dense["name"][:-1]}3', seed=3))
    after = claims.compare(evidence, pair.trials[0], pair.baseline, pair.metrics[0])
    assert after.seeds == 4 and after.points == pytest.approx((3 * before.points + 50) / 4)
    assert f'{better["accuracy/top1"]:.1f})' in render(evidence, [])


def test_the_study_is_of_one_seed_and_its_images():
    (pair,) = (pair for pair in PAIRS if pair.variants)
    evidence = made_evidence()
    assert 'Tokens and place' not in render(evidence, [])  # without the answers one seed has no interval
    shares = {run.name: 0.5 + i / 20 for i, run in enumerate((pair.baseline, pair.twins[0], *pair.study))}
    for run in evidence['runs']:
        if run['name'] in shares:
            run['right'] = store.pack(np.arange(1000) < 1000 * shares[run['name']])
    page = render(evidence, [])
    rows = [line for line in page.splitlines() if line.startswith(f'| [{pair.semantic[0]}')][-len(pair.study) - 1 :]
    for row, (name, share) in zip(rows, list(shares.items())[1:], strict=True):
        assert f'[{name.removesuffix("_seed-0")}]' in row and f'{100 * share - 50:+.2f} (' in row
    assert 'Seed 0 alone: the interval is one over the test images of CIFAR-10' in page


def test_nothing_is_judged_on_a_part():
    evidence = made_evidence()
    gone = ('stvit-tiny_digits_seed-2', 'swin_digits_seed-0')
    evidence['runs'] = [run for run in evidence['runs'] if 'cifar' not in run['name'] and run['name'] not in gone]
    del evidence['measured']['speed_STViT-S']
    for claim in ('keeps its accuracy', 'slightly up', 'more than 100 % faster'):
        assert verdict_of(evidence, claim).verdict == NOT_TESTABLE
    assert '2 of 3 seeds' in render(evidence, [])
    nothing = dict(runs=[], measured={})
    assert {v.verdict for v in claims.verdicts(nothing)} == {NOT_TESTABLE}
    assert 'Not run yet: STViT-T and DeiT-T (gpu)' in render(nothing, [])


def test_page(tmp_path):
    evidence = made_evidence({'stvit-t_cifar10': (83.0, 83.2, 83.4)})
    write_page(evidence, tmp_path / 'evidence.md')
    page = (tmp_path / 'evidence.md').read_text()
    assert 'top-1 83.2 (83.0, 83.2, 83.4) | 86.2 (86.0, 86.2, 86.4) | -3.00 (-3.00 to -3.00) | **lower by 3.0' in page
    assert 'box AP 76.0 (75.0, 76.0, 77.0)' in page  # in per cent
    assert '12.00 M (0.60 x)' in page and '2.50 (2.40 - 2.60)' in page
    assert page.count('no evidence: saturated |') == 5 and 'deit-t_cifar10 86.2 %' in page
    for pair in PAIRS:
        assert all(f'../configs/{run.config.split("_")[-1]}/{run.config}.py' in page for run in pair.trials[:-1])
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


def test_metafiles_have_the_means_of_all_seeds():
    runs = json.loads((ROOT / 'docs/evidence.json').read_text())['runs']
    for pair in PAIRS:
        metafile = (ROOT / config_file(pair.dense)).with_name('metafile.yml')
        entries = {model['Name']: model for model in mmengine.load(metafile)['Models']}
        for config in pair.configs:
            told = [value for result in entries[config]['Results'] for value in result['Metrics'].values()]
            own = [run['metrics'] for run in runs if re.fullmatch(rf'{config}_seed-\d', run['name'])]
            if pair.tier != 'quick' and len(own) < len(SEEDS):
                continue
            for (key, _, unit), value in zip(pair.metrics, told, strict=True):
                assert len(own) >= len(SEEDS)
                digits, unit = (3, 1) if value < 1 else (2, unit)
                assert value == round(unit * statistics.mean(one[key] for one in own), digits), config


# Measuring


def test_measurements_are_kept_and_none_is_timed_beside_others(tmp_path, monkeypatch, capsys):
    pair = next(pair for pair in PAIRS if pair.tier == 'quick')
    for name, value in (('PAIRS', (pair,)), ('PUBLISHED', {}), ('FULL_SIZE', ()), ('TIMING', (1, 1))):
        monkeypatch.setattr(measure, name, value)

    def gathered(busy):
        monkeypatch.setattr('psutil.cpu_percent', lambda interval, percpu: [busy] * 1024)
        evidence, failures = command.gather(command.parse_args(['--work-dir', str(tmp_path)]), timing=True)
        assert failures == {} and ('busy' in capsys.readouterr().out) == (busy > 20)
        return evidence['measured']

    found = gathered(60.0)
    # As configs/digits/README.md has them: 12.1 and 22.2 M.
    costs = [measure.cost_of(found, run)['multiply_adds'] for run in pair.trials]
    assert costs == pytest.approx([12.1e6, 22.2e6], rel=0.01) and len(found) == 2
    found = gathered(10.0)
    speed = measure.speed_of(found, pair.dense, pair.semantic[0])
    assert speed['batch_size'] == 1 and speed['images_per_second']['median'] > 0
    assert measure.speed_of(found, pair.dense, pair.dense)['ratio']['median'] == 1
    assert gathered(10.0) == gathered(60.0) == found  # the times too


def test_failed_measurement_is_told(tmp_path, monkeypatch):
    for name, value in (('PAIRS', ()), ('PUBLISHED', {'X': 'digits/absent.py'}), ('FULL_SIZE', ())):
        monkeypatch.setattr(measure, name, value)
    found, failures = Measurements(tmp_path, print).take()
    assert found == {} and list(failures) == ['absent']


def test_cores_of_others_do_not_count(monkeypatch):
    monkeypatch.setattr('psutil.cpu_percent', lambda interval, percpu: [100.0, 10.0, 30.0, 100.0])
    monkeypatch.setattr('os.sched_getaffinity', lambda pid: {1, 2})
    assert runs.busy_share() == pytest.approx(0.2)


# The command


def test_list(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(['--list', '--only', 'vit-tiny', '--work-dir', 'w'])
    shown = [line.split(':')[0] for line in capsys.readouterr().out.splitlines() if '_seed-' in line]
    assert shown == [run.name for run in plan('quick') if 'vit-tiny' in run.name]
    main(['--list', '--only', 'vit-tiny*', '--work-dir', 'w'])  # as a whole: of stvit-tiny none
    assert 'stvit' not in capsys.readouterr().out
    main(['--list', '--seeds', '5', '--only', 'swin_digits', '--work-dir', 'w'])
    assert 'swin_digits_seed-4' in capsys.readouterr().out


@pytest.mark.parametrize(
    'args, line',
    [
        (['--only', 'nothing'], 'no run has such a name'),
        (['--jobs', '0'], 'at least 1'),
        (['--minutes', '3'], 'is for --tier gpu'),
        (['--data-root', '.'], 'on which none of these runs is trained'),
        (['--data-root', '.', '--tier', 'cpu', '--only', 'bccd'], 'on which none of these runs is trained'),
        (['--tier', 'cpu'], 'data/cifar10 must have the folders train and test'),
        (['--add', 'x.json'], 'give --report-only too'),
        (['--add', 'x.json', '--report-only', '--work-dir', 'w'], 'there are no results in x.json'),
        (['--list', '--page-only'], 'give one of'),
        (['--only', 'x', '--report-only'], 'has no effect'),
        (['--seeds', '4', '--report-only'], 'has no effect'),
        (['--seeds', '2'], '--seeds must be 3 to 10'),
        (['--measure-again', '--list'], 'has no effect'),
        (['--out', 'page.txt'], 'name it *.md'),
        (['--page-only'], 'there are no results in docs/evidence.json'),
    ],
)
def test_wrong_arguments(args, line, fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert line in fails(main, *args)
