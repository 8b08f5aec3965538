"""tools/analysis_tools/benchmark.py: what is run, in which order, and what is made of the times; never the times."""

import csv
import itertools
import json
import statistics
import time

import mmengine
import pytest
import torch
from run_helpers import ROOT

from mmstvit.cli.benchmark import main
from mmstvit.errors import UsageError
from mmstvit.measure.inputs import Inputs
from mmstvit.measure.memory import peak_bytes
from mmstvit.measure.networks import load_network
from mmstvit.measure.report import draw
from mmstvit.measure.speed import benchmark, costs
from mmstvit.measure.timing import Job, Spread, Timing, interleave, summarise

QUICK = ['--rounds', '2', '--min-time', '0', '--device', 'cpu']


def test_each_has_its_turn_in_every_round():
    calls, turns = [], []

    def timer(name):
        def run(times):
            calls.append((name, times))
            return len(calls)

        return run

    taken = interleave([timer('a'), timer('b'), timer('c')], [1, 2, 3], 3, lambda: turns.append(1))
    forwards = [('a', 1), ('b', 2), ('c', 3)]
    assert calls == forwards + forwards[::-1] + forwards
    assert taken == [[1, 6, 7], [2, 5, 8], [3, 4, 9]]
    assert len(turns) == 9


def test_ratios_are_of_the_same_round():
    """A machine that slows down threefold in its second half: the ratio does not see it."""
    ours, baseline = [1.0, 1.1, 3.0, 3.3], [2.0, 2.2, 6.0, 6.6]
    first, last = summarise([ours, baseline], batch=8, baseline=1)
    assert first['ratio'] == Spread(2.0, 2.0, 2.0)
    assert last['ratio'] == Spread(1.0, 1.0, 1.0)
    assert first['seconds'] == Spread(2.05, pytest.approx(1.075), pytest.approx(3.075))
    assert first['images_per_second'].median == pytest.approx(statistics.median([8 / t for t in ours]))
    assert summarise([[2.0], [1.0]], batch=1, baseline=0)[1]['ratio'] == Spread(2.0, 2.0, 2.0)


def test_figures_of_a_run(tiny_config, tmp_path, capsys):
    out, plot = tmp_path / 'new' / 'speed.json', tmp_path / 'speed.png'
    main(
        [str(tiny_config), '--baseline', 'digits/vit-tiny_digits.py', '--batch-size', '1', '3', '--shape', '16', '24']
        + ['--threads', '1', '--json', str(out), '--plot', str(plot), *QUICK]
    )
    found = json.loads(out.read_text())
    said = found['environment']
    assert said['baseline'] == 'vit-tiny_digits' and said['input'] == '3 x 16 x 24'
    assert said['torch'] == torch.__version__ and said['threads'] == 1 and said['dtype'] == 'float32'
    assert said['device'] and {'commit', 'python', 'mmstvit'} <= said.keys()
    rows = found['results']
    assert [(row['network'], row['batch_size']) for row in rows] == [
        (name, batch) for batch in (1, 3) for name in ('tiny', 'vit-tiny_digits')
    ]
    for ours, base in (rows[:2], rows[2:]):
        for row in (ours, base):
            assert len(row['rounds']) == 2 and row['runs_a_round'] == 1
            assert row['seconds']['median'] == pytest.approx(statistics.median(row['rounds']))
            ratios = [b / t for b, t in zip(base['rounds'], row['rounds'])]
            assert row['ratio']['median'] == pytest.approx(statistics.median(ratios))
            assert row['images_per_second']['low'] <= row['images_per_second']['median']
            weights = 4 * row['parameters']
            assert weights < row['peak_memory'] < weights + 2**24
        assert base['top1'] is None  # it is of another image size
    assert rows[0]['multiply_adds'] == rows[2]['multiply_adds'] < rows[1]['multiply_adds']
    assert plot.read_bytes().startswith(b'\x89PNG')
    text = capsys.readouterr().out
    assert 'times as fast' in text and 'baseline: vit-tiny_digits' in text


def test_csv_of_reduced_networks(tiny_config, tmp_path):
    """The columns of timm's benchmark, and how tokens are reduced: 16 patches less 2 in each of the layers."""
    out = tmp_path / 'speed.csv'
    dense = 'digits/vit-tiny_digits.py'
    main([dense, f'{dense}+tome:r=2', '--batch-size', '2', '--csv', str(out), *QUICK])
    plain, reduced = csv.DictReader(out.open())
    assert {'model', 'infer_samples_per_sec', 'infer_step_time', 'infer_batch_size', 'infer_img_size'} <= plain.keys()
    assert {'infer_gmacs', 'param_count', 'device', 'dtype'} <= plain.keys()
    assert (plain['method'], plain['budget'], plain['tokens'], plain['times_as_fast']) == ('none', '1.0', '', '1.0')
    assert (reduced['model'], reduced['method'], reduced['options']) == (plain['model'], 'ToMe', 'r=2')
    tokens = [int(number) for number in reduced['tokens'].split()]
    assert tokens == [tokens[0] - 2 * i for i in range(len(tokens))]
    assert 0 < float(reduced['budget']) < 1 and float(reduced['infer_gmacs']) < float(plain['infer_gmacs'])


def test_reductions_of_configs_are_told(tmp_path):
    """A backbone that the config reduces, as one that is reduced by name."""
    config = tmp_path / 'reduced.py'
    config.write_text(
        "_base_ = ['mmstvit::digits/vit-tiny_digits.py']\n"
        "model = dict(backbone=dict(_delete_=True, type='mmstvit.Reduced', backbone=_base_.model.backbone,\n"
        "    reduce=dict(type='ToMe', r=2)))\n"
    )
    networks = [load_network(spec) for spec in ('digits/vit-tiny_digits.py+tome:r=2', str(config))]
    named, configured = benchmark(networks, Timing(rounds=1, min_time=0), batch_sizes=[1])['results']
    assert configured['reduction'] == named['reduction'] and named['reduction']['options'] == dict(r=2)


def test_called_from_python(tiny_config):
    networks = [load_network(str(tiny_config)), load_network('digits/vit-tiny_digits.py')]
    timing = Timing(part=None, rounds=2, min_time=0)
    report = benchmark(networks, timing, baseline=1, batch_sizes=[2], shape=(16, 24))
    ours, dense = report['results']
    assert (ours['network'], ours['batch_size'], len(ours['rounds'])) == ('tiny', 2, 2)
    assert dense['ratio'] == dict(median=1, low=1, high=1)
    assert report['environment']['part'] == 'model' and report['environment']['input'] == '3 x 16 x 24'
    for wrong, line in (
        (dict(rounds=0), 'rounds must be at least 1'),
        (dict(dtype='float16'), 'float16 is for GPUs'),
        (dict(device='tpu'), 'give cpu, cuda'),
        (dict(train_step=True, part='backbone'), 'of the whole network'),
    ):
        with pytest.raises(UsageError, match=line):
            Timing(**wrong)
    with pytest.raises(UsageError, match='a profile is of inference'):
        benchmark(networks, Timing(train_step=True), profile=True)


@pytest.mark.parametrize('part', ['model', 'backbone'])
def test_profile_has_every_part(part, tiny_config, tmp_path, capsys, monkeypatch):
    """Each layer took the ticks between its own two looks at the clock, and the parts make up the whole."""
    ticks = itertools.count()
    monkeypatch.setattr(time, 'perf_counter', lambda: float(next(ticks)))
    out = tmp_path / 'speed.json'
    main([str(tiny_config), '--batch-size', '2', '--profile', '--part', part, '--json', str(out), *QUICK])
    (row,) = json.loads(out.read_text())['results']
    network = load_network(str(tiny_config))
    called = ['patch_embed', *(f'encoder.layers.{i}' for i in range(len(network.model.backbone.encoder.layers)))]
    if part == 'model':
        called = [*(f'backbone.{name}' for name in called), 'head']
    names = [part['name'] for part in row['parts']]
    assert names == [*called, '']
    assert all(part['seconds'] == 1 for part in row['parts'][:-1])
    assert row['parts'][-1]['seconds'] == len(names)  # the looks at the clock between the parts
    assert sum(part['multiply_adds'] for part in row['parts']) == 2 * row['multiply_adds']
    assert 'G multiply-adds a second' in capsys.readouterr().out


def test_top1_is_that_of_the_metafile_at_its_image_size():
    network = load_network('digits/vit-tiny_digits.py')
    metafile = mmengine.load(ROOT / 'configs' / 'digits' / 'metafile.yml')
    entry = next(m for m in metafile['Models'] if m['Name'] == 'vit-tiny_digits')
    assert costs(network, (3, *network.size))['top1'] == entry['Results'][0]['Metrics']['Top 1 Accuracy']


@pytest.mark.parametrize(
    'top1,label', [((98.0, 99.0), 'top-1 accuracy, %'), ((98.0, None), 'multiply-adds of a forward, G')]
)
def test_plot_is_against_top1_where_all_have_one(top1, label, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr('matplotlib.figure.Figure.savefig', lambda figure, *args, **options: drawn.append(figure))
    speed = dict(median=10.0, low=9.0, high=12.0)
    rows = [
        dict(network=name, toolbox='timm', batch_size=batch, images_per_second=speed, multiply_adds=2e9, top1=accuracy)
        for batch in (1, 8)
        for name, accuracy in zip('ab', top1)
    ]
    setting = dict(baseline='b', measured='inference', threads=2, device='a CPU', dtype='float32', input='3 x 8 x 8')
    draw(rows, setting, str(tmp_path / 'plot.png'))
    panels = drawn[0].axes
    assert [panel.get_title() for panel in panels] == ['batch size 1', 'batch size 8']
    assert [panel.get_xlabel() for panel in panels] == [label] * 2
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ['a', 'b (baseline)']


def test_a_network_beside_itself(tiny_config, tmp_path):
    """The first is the baseline where none is named."""
    out = tmp_path / 'speed.json'
    main([str(tiny_config), str(tiny_config), '--batch-size', '1', '--json', str(out), *QUICK])
    first, second = json.loads(out.read_text())['results']
    assert first['ratio'] == dict(median=1, low=1, high=1)
    assert second['ratio']['median'] == pytest.approx(
        statistics.median(a / b for a, b in zip(first['rounds'], second['rounds']))
    )


def test_inference_and_training_steps(tiny_config):
    network = load_network(str(tiny_config))
    before = {name: p.clone() for name, p in network.model.named_parameters()}
    modes = []
    hook = network.model.backbone.register_forward_hook(
        lambda module, args, outs: modes.append((module.training, outs[0].requires_grad, outs[0].dtype))
    )
    Job(network, (3, 16, 16), 2, Timing()).run()
    Job(network, (3, 16, 16), 2, Timing(dtype='bfloat16', part='backbone')).run()
    assert all(torch.equal(p, before[name]) for name, p in network.model.named_parameters())
    step = Job(network, (3, 16, 16), 2, Timing(train_step=True))
    step.run()
    hook.remove()
    assert modes[0] == (False, False, torch.float32)
    assert modes[1][:2] == (False, False)
    assert modes[2] == (True, True, torch.float32)
    changed = [not torch.equal(p, before[name]) for name, p in network.model.named_parameters() if p.requires_grad]
    assert all(changed)
    assert all(p.grad is None for p in network.model.parameters())
    state = sum(2 * p.nbytes + 4 for p in network.model.parameters() if p.requires_grad)
    weights = sum(x.nbytes for x in [*network.model.parameters(), *network.model.buffers()])
    # Beside them a step takes the gradients at least.
    assert step.memory() > state + weights + sum(p.nbytes for p in network.model.parameters())


def test_autocast_and_compilation_take_effect(tiny_config):
    network = load_network(str(tiny_config))
    kinds = []
    network.model.backbone.patch_embed.register_forward_hook(lambda module, args, out: kinds.append(out.dtype))
    Job(network, (3, 16, 16), 1, Timing(dtype='bfloat16')).run()
    assert kinds == [torch.bfloat16]
    for part in ('model', 'backbone'):
        job = Job(network, (3, 16, 16), 1, Timing(compile=True, part=part))
        called = network.model if part == 'model' else network.model.backbone
        assert called._compiled_call_impl is not None
        job.close()
        assert called._compiled_call_impl is None


def test_timm_and_clips_train_too(tmp_path):
    timm = pytest.importorskip('timm')
    network = load_network('timm:test_vit')
    assert isinstance(network.model, timm.models.VisionTransformer)
    Job(network, (3, *network.size), 2, Timing(train_step=True)).run()
    pytest.importorskip('mmaction')
    clips = load_network('digits/stvit-swin3d_digits.py')
    Job(clips, (3, *clips.size), 1, Timing(train_step=True)).run()


def test_detectors_run_their_backbone_or_train_as_a_whole(tmp_path):
    pytest.importorskip('mmdet')
    out = tmp_path / 'speed.json'
    config = 'digits/mask-rcnn_stvit-r_digits.py'
    main([config, '--batch-size', '1', '--shape', '64', '64', '--json', str(out), *QUICK])
    found = json.loads(out.read_text())
    network = load_network(config)
    parameters = sum(p.numel() for p in network.model.backbone.parameters())
    assert found['environment']['part'] == 'backbone' and found['results'][0]['parameters'] == parameters
    loss = Inputs(network, (3, 64, 64), 2).loss()
    assert loss.requires_grad and loss.isfinite()


def test_peak_memory_is_that_of_live_tensors():
    def run():
        first = torch.empty(2**18)  # 1 MiB
        second = torch.empty(2**18)
        del first
        return torch.empty(2**17), second

    assert peak_bytes(run) == 2 * 2**20


@pytest.mark.parametrize(
    'given,message',
    [
        (['--cuda-graph'], 'a CUDA graph is of inference on a GPU'),
        (['--dtype', 'float16'], 'float16 is for GPUs'),
        (['--train-step', '--part', 'backbone'], 'a training step is of the whole network'),
        (['--profile', '--compile'], 'leave --train-step and --compile out'),
        (['--batch-size', '0'], 'at least 1'),
        (['--rounds', '0'], 'rounds must be at least 1'),
        (['--threads', '0'], '--threads must be at least 1'),
        (['--device', 'meta'], 'this machine has cpu'),
        (['--plot', 'speed.txt'], 'name it *.png'),
        (['--json', 'speed.yml'], 'name it *.json'),
        (['--baseline', 'timm:no_such_model'], 'timm has no model no_such_model'),
        (['--baseline', 'timm:test_vit', '--part', 'backbone'], 'no backbone that runs alone'),
        (['--shape', '8', '32', '32'], 'give H W for images'),
    ],
)
def test_wrong_options_are_told_in_one_line(given, message, tiny_config, fails):
    assert message in fails(main, tiny_config, '--device', 'cpu', *given)


def test_gpu_options_without_a_gpu(tiny_config, fails, monkeypatch):
    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: False)
    assert 'no device cuda: this machine has cpu' in fails(main, tiny_config, '--device', 'cuda')
