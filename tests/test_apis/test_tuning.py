"""``mmstvit.tune``: the table of times, the search, what is written, and what is measured again. Never the times."""

import itertools
import json
import math
import re

import pytest
import torch
from mmengine.config import Config
from rich.progress import Progress
from run_helpers import TINY, VIDEO, saved, write_folders

from mmstvit import get_model, tune
from mmstvit.apis import tuning, tuning_report
from mmstvit.apis.tuning_data import Judge, Samples
from mmstvit.apis.tuning_schedules import Schedules
from mmstvit.apis.tuning_search import Choice, Target, front, within
from mmstvit.cli.tune import main
from mmstvit.errors import UsageError
from mmstvit.layers.adapters import transformer_of
from mmstvit.layers.steps import build_steps
from mmstvit.layers.steps.base import Network
from mmstvit.layers.steps.schedule import tokens_per_block
from mmstvit.measure.block_times import BlockTimes, measure_blocks, measure_method
from mmstvit.measure.networks import network_of
from mmstvit.measure.timing import Job, Timing
from mmstvit.models import reduce_

DENSE = TINY.replace('stvit-tiny_digits', 'vit-tiny_digits').replace('stgm_layer=1,\n        semantic_grid=(2, 2)', '')
CLASS_TOKEN = DENSE.replace('patch_size=8', "with_cls_token=True, out_type='cls_token', patch_size=8")
QUICK = Timing('cpu', rounds=1, min_time=0)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """The config of a small dense network with a class token, and its weights."""
    return saved(tmp_path_factory.mktemp('dense'), CLASS_TOKEN, tuple('0123456789'))


@pytest.fixture(scope='module')
def run(files, tmp_path_factory):
    """A finished run, and its folder."""
    config, weights = files
    out = tmp_path_factory.mktemp('tuned')
    options = dict(methods=['tome', 'TopK'], batch_size=4, images=24, timing=QUICK, out=out)
    return tune(config, config, '0.6macs', weights, **options), out, options


def counting_clock(model, attention, mlp, stem, alone=1.0, sizes=0.5):
    """A timer by which attention takes so much for each token, an MLP, and a network beside its blocks.

    Attention takes ``sizes`` more for each token where tokens weigh by the patches that they stand for. Blocks that are
    run alone take ``alone`` times as much as in a network.
    """
    taken, network = [0.0], [False]

    def add(price, tokens):
        taken[0] += price * tokens

    def begin(module, args):
        network[0] = True
        add(stem, 1)

    for layer in model.backbone.encoder.layers:
        layer.attn.register_forward_pre_hook(
            lambda module, args: add(attention + (0 if args[3] is None else sizes), args[0].shape[1])
        )
        layer.mlp.register_forward_pre_hook(lambda module, args: add(mlp, args[0].shape[1]))
    model.backbone.register_forward_pre_hook(begin)

    def timer(run, times):
        taken[0], network[0] = 0.0, False
        run()
        return taken[0] * (1.0 if network[0] else alone)

    return timer


@pytest.mark.parametrize('alone', [1.0, 1.3])
@pytest.mark.parametrize('method, options', [('ToMe', dict(r=[0, 3, 5, 1])), ('TopK', dict(r=[6, 0, 4, 0]))])
def test_predicted_time_is_that_of_the_clock(files, method, options, alone):
    """Times that are linear in the number of tokens are predicted to the last digit, of any schedule.

    Known networks correct what blocks alone tell.
    """
    config, _ = files
    model = get_model(config)
    network = network_of(Config.fromfile(config), 'dense', model)
    clock = counting_clock(model, attention=3.0, mlp=2.0, stem=50.0, alone=alone)
    table = measure_blocks(network, (3, 32, 32), 2, QUICK, clock)
    assert table.dense == pytest.approx(50 + 4 * 17 * (3 + 2)) and table.count == 16 and table.stepped == table.dense
    assert table.tokens == [1, 2, 4, 8, 12, 16] and table.step_tokens == (1,)
    table = measure_method(network, (3, 32, 32), 2, method, table, QUICK, clock)
    assert table.step_tokens == [2, 8, 16] and table.scale == pytest.approx(1 / alone)

    reduce_(model, method, **options)
    after = model.reduction.tokens
    predicted = table.network([16, *after[:-1]], options['r'])
    taken = clock(Job(network, (3, 32, 32), 2, QUICK).run, 1)
    assert predicted == pytest.approx(taken, rel=1e-6) and predicted < table.dense


def test_search_against_brute_force():
    def choices(layer, n):
        for r in range(0, n // 2 + 1):
            yield Choice(r, n - r, resource=(n - r) * (2 + layer % 2) + 0.3 * n, cost=(r / n) ** 2 * (5 - layer))

    def brute(amounts):
        n, resource, cost = 10, 0.0, 0.0
        for layer, r in enumerate(amounts):
            choice = next((c for c in choices(layer, n) if c.r == r), None)
            if choice is None:
                return None
            n, resource, cost = choice.after, resource + choice.resource, cost + choice.cost
        return resource, cost

    possible = [found for amounts in itertools.product(range(6), repeat=4) if (found := brute(amounts))]
    plans = front(4, 10, choices)
    for plan in plans:
        assert brute(plan.amounts) == pytest.approx((plan.resource, plan.cost))
    resources = sorted(resource for resource, _ in possible)
    for limit in (resources[0], *resources[:: len(resources) // 7]):
        best = min(cost for resource, cost in possible if resource <= limit + 1e-9)
        assert within(plans, limit + 1e-9).cost == pytest.approx(best)
    assert within(plans, resources[0] - 1) is None


def test_many_ways_are_thinned_and_stay_near_the_best():
    """With more ways than are kept, the least and the dense one stay, and costs are near those of all."""

    def choices(layer, n):
        return (Choice(r, n, -r * (1 + 0.01 * layer), (1 + 0.1 * layer) * r**1.5) for r in range(9))

    plans = front(12, 40, choices)
    assert plans[-1].amounts == (0,) * 12 and plans[0].amounts == (8,) * 12
    assert len(plans) <= 201
    middle = within(plans, -48)
    even = sum((1 + 0.1 * layer) * 4**1.5 for layer in range(12))
    assert middle.cost < even


@pytest.mark.parametrize('costs', ['none', 'equal', 'noise', 'real'])
def test_of_equal_costs_the_least_and_most_even_reduction_is_found(costs):
    """Against brute force: by costs, and where they tie by the sum of squared shares."""
    layers, generator = 4, torch.Generator().manual_seed(0)
    made = {
        'none': torch.zeros(layers, 2),
        'equal': torch.full((layers, 2), 0.3),
        'noise': 1e-10 * torch.rand(layers, 2, generator=generator),
        'real': torch.tensor([0.01, 0.3]) * (1 + torch.rand(layers, 1, generator=generator)),
    }[costs]
    table = BlockTimes(layers, 16, [1, 16], [0.1, 1.0], 5.0, 5.0)
    known = Schedules(Network(layers, 8, (4, 4), 1), (4, 4), dict(TopK=table), dict(TopK=made.tolist()))

    def of(amounts):
        n, seconds, cost, squares = 16, 5.0, 0.0, 0.0
        for (less, more), r in zip(made.tolist(), amounts):
            if r > n // 2:
                return None
            if 0 < less < more:
                cost += less * (8 * r / n) ** (math.log(more / less) / math.log(4))
            else:  # up to the first amount linear, then as much
                cost += less * min(8 * r / n, 1)
            seconds += 0.9 * (n - 16) / 15
            squares += (r / n) ** 2
            n -= r
        return seconds, round(cost, 6), squares

    possible = {amounts: found for amounts in itertools.product(range(9), repeat=layers) if (found := of(amounts))}
    for target in ('1.1x', '1.4x', '1.6x'):
        plan = within(known.plans('TopK'), known.limit('TopK', Target.parse(target)) + 1e-9)
        kept = {a: (c, s) for a, (t, c, s) in possible.items() if t <= 5 / float(target[:-1]) + 1e-9}
        assert kept and len(plan.amounts) == layers
        (cost, squares), best = kept[plan.amounts], min(kept.values())
        if costs == 'real':
            assert cost == pytest.approx(best[0], rel=1e-2)
        else:
            assert (cost, squares) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize('saved, tries', [(1.0, 1), (0.8, 2), (1.3, 2)])
def test_what_was_measured_corrects_what_is_searched(run, files, tmp_path, monkeypatch, saved, tries):
    """On a machine where networks save less or more than predicted, the second search keeps the target closely."""
    table = BlockTimes(4, 16, [1, 16], [0.004, 0.02], 0.1, 0.1)

    def measure(task, described):
        for one in described:
            entering = [16, *one['tokens'][:-1]] if 'tokens' in one else [16] * 4
            share = 1 - saved * (1 - table.network(entering, [0] * 4) / 0.1)
            one.update(measured_ms=200 * share, measured_times_as_fast=1 / share, difference=0.0, as_predicted=True)
        return run[0]['environment']

    monkeypatch.setattr(tuning, '_measure', measure)
    monkeypatch.setattr(tuning, 'measure_blocks', lambda *args: table)
    monkeypatch.setattr(tuning, 'measure_method', lambda *args: table)
    monkeypatch.setattr(Judge, 'of_layer', lambda *args: [0.0, 0.0])
    monkeypatch.setattr(tuning_report, 'draw', lambda *args: None)
    options = dict(methods=['topk'], batch_size=4, images=4, timing=QUICK)
    result = tune(files[0], files[0], '1.3x', files[1], out=tmp_path, **options)
    assert len(result['tried']) == tries and result['kept'] and 1.3 <= result['measured_times_as_fast'] < 1.4
    first, last = result['tried'][0], result['tried'][-1]
    assert first['predicted_ms'] <= 100 / 1.3 and first['kept'] == (saved >= 1)
    assert last['options'] == result['options'] and last['predicted_ms'] == result['predicted_ms']
    if tries > 1:  # the machine takes twice as long now, and that is known too
        assert last['predicted_ms'] == pytest.approx(last['measured_ms'])
    card = (tmp_path / 'README.md').read_text()
    assert f'search {tries}: predicted {last["predicted_ms"]:.2f} ms, measured {last["measured_ms"]:.2f} ms' in card
    assert 'target 1.3x: kept' in card


def test_divergence_and_agreement_by_their_formulas(files):
    model = get_model(*files)
    samples = Samples(torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(6))
    judge = Judge(model, samples, 4)
    assert judge.of_options('ToMe', dict(r=0))['divergence'] == 0
    found = judge.of_options('ToMe', dict(r=4))
    assert not hasattr(model, 'reduction')
    with torch.inference_mode():
        dense = model(samples.images, mode='tensor').double()
        other = reduce_(model, 'tome', r=4)(samples.images, mode='tensor').double()
    kl = torch.nn.functional.kl_div(
        other.log_softmax(-1), dense.log_softmax(-1), log_target=True, reduction='batchmean'
    )
    assert found['divergence'] == pytest.approx(float(kl), rel=1e-4) and found['divergence'] > 0
    assert found['agreement'] == float((dense.argmax(-1) == other.argmax(-1)).double().mean())
    assert found['top1'] == float((other.argmax(-1) == samples.labels).double().mean())


def test_written_config_builds_the_network_of_the_schedule(run, files):
    result, out, _ = run
    stored = json.loads((out / 'schedule.json').read_text())
    assert stored == result
    model = get_model(out / 'config.py', files[1])
    reduction = model.backbone.reduction
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in stored['options'].items()}
    assert (reduction.method, reduction.options) == (stored['method'], options)
    assert reduction.tokens == stored['tokens']
    assert reduction.share == pytest.approx(stored['multiply_adds']) and stored['multiply_adds'] <= 0.6
    assert Config.fromfile(out / 'config.py').load_from == files[1]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    dense = get_model(*files)
    reduce_(dense, stored['method'], **stored['options'])
    with torch.inference_mode():
        assert torch.equal(model(images, mode='tensor'), dense(images, mode='tensor'))


def test_figures_of_a_run(run):
    result, out, _ = run
    assert result['images'] == dict(costs=12, searched=12, held_out=12, plotted=12)
    assert result['dense']['agreement'] == 1 and result['dense']['divergence'] == 0
    changed = result['dense']['measured_ms'] / result['dense']['predicted_ms']
    for one in (result, result['constant'], result['dense']):
        expected = one['measured_ms'] / one['predicted_ms'] / (1 if one is result['dense'] else changed) - 1
        assert one['difference'] == pytest.approx(expected)
        assert one['as_predicted'] == (abs(one['difference']) <= 0.05)
        assert 0 <= one['agreement'] <= 1 and 0 <= one['top1'] <= 1
        assert math.isclose(12 * one['agreement'], round(12 * one['agreement']), abs_tol=1e-9)
    ours, theirs = result['agreement'], result['constant']['agreement']
    assert result['verdict'] == ('beats' if ours > theirs else 'equals' if ours == theirs else 'loses to')
    assert result['constant']['method'] == result['method']
    assert (out / 'pareto.png').read_bytes().startswith(b'\x89PNG')
    times = [point['predicted_ms'] for point in result['pareto']]
    assert {point['method'] for point in result['pareto']} == set(result['divergence_of_methods']) and min(times) > 0


def test_the_card_has_the_figures_of_the_schedule(run):
    result, out, _ = run
    text = (out / 'README.md').read_text()
    rows = [line.split('|')[1:-1] for line in text.splitlines() if line.startswith('| ')][1:]
    for cells, one in zip(rows, (result['dense'], result, result['constant']), strict=True):
        assert float(cells[1]) == round(one['predicted_ms'], 2)
        assert float(cells[2]) == round(one['measured_ms'], 2)
        assert float(cells[5].strip(' %')) == pytest.approx(100 * one['agreement'], abs=0.05)
        assert float(cells[6].strip(' %')) == pytest.approx(100 * one['top1'], abs=0.05)
    assert str(result['tokens'])[1:-1] in text
    setting = result['environment']
    assert setting['device'] in text and setting['torch'] in text and setting['mmstvit'] in text
    (command,) = re.findall(r'^mmstvit tune .*$', text, re.MULTILINE)
    assert '--target 0.6macs' in command and '--methods tome,topk' in command and '--images 24' in command


def kept_times(folder):
    return json.loads((folder / 'state.json').read_text())['times']


def test_a_second_run_measures_nothing_again(run, files):
    result, out, options = run
    (out / 'README.md').unlink()
    # A time that is measured anew is another one.
    assert tune(files[0], files[0], '0.6macs', files[1], **options) == result
    assert (out / 'README.md').is_file()


def test_another_target_measures_only_the_result(run, files):
    """Times and costs are kept; settings that they depend on make them anew."""
    result, out, options = run
    times = kept_times(out)
    other = tune(files[0], files[0], '0.8macs', files[1], **options)
    assert kept_times(out) == times and result['multiply_adds'] < other['multiply_adds'] <= 0.8
    tune(files[0], files[0], '0.6macs', files[1], **{**options, 'batch_size': 2, 'methods': ['topk']})
    assert list(kept_times(out)) == ['blocks', 'TopK'] and kept_times(out)['TopK'] != times['TopK']


class Interrupted(Progress):
    """Ctrl-C comes when the costs of two layers are known."""

    def advance(self, task_id, advance=1):
        super().advance(task_id, advance)
        if self.tasks[task_id].description == 'costs of layers' and self.tasks[task_id].completed == 2:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_where_it_ended(files, tmp_path):
    config, weights = files
    options = dict(methods=['topk'], batch_size=4, images=4, timing=QUICK, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tune(config, config, '0.7macs', weights, progress=Interrupted(disable=True), **options)
    assert not (tmp_path / 'schedule.json').exists()
    before = json.loads((tmp_path / 'state.json').read_text())
    assert list(before['times']) == ['blocks', 'TopK'] and len(before['costs']) == 2
    # Other costs than would be found again.
    before['costs'] = {layer: [2 * cost + 1e-3 for cost in costs] for layer, costs in before['costs'].items()}
    (tmp_path / 'state.json').write_text(json.dumps(before))
    result = tune(config, config, '0.7macs', weights, **options)
    assert result['multiply_adds'] <= 0.7
    after = json.loads((tmp_path / 'state.json').read_text())
    assert after['times'] == before['times'] and len(after['costs']) == 4
    assert {layer: after['costs'][layer] for layer in before['costs']} == before['costs']


@pytest.mark.parametrize('method', ['ToMe', 'EViT'])
def test_costs_of_a_layer_are_those_of_a_network_that_reduces_there_alone(files, method):
    model, layer = get_model(*files), 2
    blocks = model.backbone.encoder.layers
    judge = Judge(model, Samples(torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)), None), 4)
    run = []
    handles = [block.attn.register_forward_hook(lambda *a, i=i: run.append(i)) for i, block in enumerate(blocks)]
    judge.of_layer(method, layer - 1, (2, 4))
    run.clear()
    costs = judge.of_layer(method, layer, (2, 4))
    # In two batches: the layer before once, by which it goes on; the layer and those after once for each amount.
    assert [run.count(i) for i in range(len(blocks))] == [0, 2, 4, 4]
    run.clear()
    judge.of_layer('TopK', layer, (2, 4))
    assert [run.count(i) for i in range(len(blocks))] == [0, 0, 4, 4]  # what enters it is known
    for handle in handles:
        handle.remove()
    assert judge.divergence(judge.logits()) == 0  # the network is as it was
    layers = len(blocks)
    alone = [[r if i == layer else 0 for i in range(layers)] for r in (2, 4)]
    assert costs == [judge.of_options(method, dict(r=r))['divergence'] for r in alone]
    assert 0 < costs[0] < costs[1]
    assert judge.of_layer(method, 0, (2,)) != costs[:1]  # from the start again


def test_images_of_a_folder_have_no_top1(files, tmp_path, capsys):
    write_folders(tmp_path)
    config, weights = files
    quick = ['--rounds', '1', '--min-time', '0', '--device', 'cpu', '--methods', 'tome', '--images', '8']
    out = tmp_path / 'out'
    main(
        [config, '--checkpoint', weights, '--data', str(tmp_path / 'val'), '--target', '0.7macs', '--out', str(out)]
        + quick
    )
    result = json.loads((out / 'schedule.json').read_text())
    assert result['top1'] is None and result['images'] == dict(costs=4, searched=4, held_out=4, plotted=4)
    shown = capsys.readouterr().out
    assert f'{100 * result["agreement"]:.1f}%' in shown and str(out) in shown


def test_all_methods_on_a_network_of_mmpretrain(tmp_path):
    text = CLASS_TOKEN.replace('patch_size=8', "_delete_=True, type='VisionTransformer', img_size=32, patch_size=8")
    config, weights = saved(
        tmp_path, text.replace("with_cls_token=True, out_type='cls_token', ", ''), tuple('0123456789')
    )
    result = tune(config, config, '0.6macs', weights, batch_size=4, images=4, timing=QUICK, out=tmp_path / 'out')
    tried = {'ToMe', 'ATM', 'PiToMe', 'DPCKNN', 'TopK', 'EViT', 'ATS', 'RepresentationShift'}
    assert set(result['divergence_of_methods']) == {point['method'] for point in result['pareto']} == tried
    assert result['method'] == min(tried, key=result['divergence_of_methods'].get)
    model = get_model(tmp_path / 'out' / 'config.py', weights)
    assert model.backbone.reduction.tokens == result['tokens'] and model.backbone.reduction.share <= 0.6


@pytest.mark.parametrize('text', ['0ms', '0x', '1x', 'fast', '', '2', '-3x', '1.2macs', '0macs', 'nanx', '1e9x', '2 y'])
def test_bad_targets_are_refused(text):
    with pytest.raises(UsageError):
        Target.parse(text)


@pytest.mark.parametrize(
    'text, kind, value', [('2x', 'x', 2), ('10MS', 'ms', 10), ('.5macs', 'macs', 0.5), ('1.5x', 'x', 1.5)]
)
def test_targets(text, kind, value):
    assert Target.parse(text) == Target(kind, value)


def test_what_cannot_be_is_told_in_a_line(files, tmp_path, fails):
    config, weights = files
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'broken').mkdir()
    for i in range(2):
        (tmp_path / 'broken' / f'{i}.png').write_bytes(b'no image')
    quick = ['--rounds', '1', '--min-time', '0', '--device', 'cpu', '--methods', 'topk', '--out', tmp_path / 'out']
    command = [config, '--checkpoint', weights, *quick, '--images', '4']
    assert '0ms' in fails(main, *command, '--data', config, '--target', '0ms')
    for target in ('100x', '0.001macs', '0.00001ms'):
        line = fails(main, *command, '--data', config, '--target', target)
        assert 'out of reach' in line and 'TopK' in line
    assert 'as it is' in fails(main, *command, '--data', config, '--target', '1000000ms')
    assert str(tmp_path / 'empty') in fails(main, *command, '--data', tmp_path / 'empty', '--target', '2x')
    assert '.png' in fails(main, *command, '--data', tmp_path / 'broken', '--target', '2x')
    assert 'tomee' in fails(main, *command, '--data', config, '--target', '2x', '--methods', 'tomee')
    assert 'batch size' in fails(main, *command, '--data', config, '--target', '2x', '--batch-size', '0')
    assert 'no config' in fails(main, *command, '--data', tmp_path / 'absent', '--target', '2x')


@pytest.mark.parametrize('name', ['README.md', 'config.py', 'pareto.png', 'schedule.json', 'state.json'])
def test_other_files_are_not_written_over(name, files, tmp_path, fails):
    (tmp_path / name).write_text('{"mine": 1}')
    command = [files[0], '--checkpoint', files[1], '--data', files[0], '--target', '0.7macs', '--device', 'cpu']
    assert f'{name} is there' in fails(main, *command, '--out', tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, '{"mine": 1}')]


def test_settings_that_would_have_no_effect(files):
    for timing in (Timing('cpu', dtype='bfloat16'), Timing('cpu', compile=True), Timing('cpu', train_step=True)):
        with pytest.raises(UsageError, match='float32'):
            tune(files[0], files[0], '2x', files[1], timing=timing)
    for options in (dict(images=1), dict(batch_size=0), dict(methods=[]), dict(methods=['GridPool'])):
        with pytest.raises(UsageError):
            tune(files[0], files[0], '2x', files[1], timing=QUICK, **options)


def test_networks_that_cannot_be_reduced(files, run, tmp_path, fails):
    quick = ['--device', 'cpu', '--target', '2x', '--data', files[0], '--out', tmp_path / 'out']
    config, weights = saved(tmp_path, TINY, tuple('0123456789'))
    assert 'reduce=None' in fails(main, config, '--checkpoint', weights, *quick)
    assert 'already' in fails(main, run[1] / 'config.py', '--checkpoint', files[1], *quick)
    video = tmp_path / 'video.py'
    video.write_text(VIDEO.replace('{root}', str(tmp_path)))
    pytest.importorskip('mmaction')
    assert 'mmpretrain' in fails(main, video, '--checkpoint', weights, *quick)


def test_constant_schedule_has_about_the_same_predicted_time(run):
    result, _, _ = run
    options, layers = result['constant']['options'], len(result['tokens'])
    ((name, value),) = options.items()
    assert name == ('r' if result['method'] == 'ToMe' else 'keep_rate') and value > 0
    assert len(result['options']['r']) == layers
    network = transformer_of(get_model(result['model'])).network
    steps = build_steps(dict(type=result['constant']['method'], **options), network)
    assert tokens_per_block(network, steps) == result['constant']['tokens']
