"""Export to OpenVINO, int8 and torch.export, and back ends side by side."""

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from run_helpers import ROOT, SHALLOW, TINY
from small_backbones import BACKBONES, PLAIN, build
from vits import METHODS, randomise, timm_vit

from mmstvit import get_model, inference_model, reduce_
from mmstvit.cli.benchmark import main as benchmark
from mmstvit.cli.export import main as export
from mmstvit.datasets import digit_scans
from mmstvit.deploy import int8
from mmstvit.deploy.export import export_model, record
from mmstvit.deploy.formats import operators, write_onnx, write_openvino
from mmstvit.deploy.run_exported import main as run
from mmstvit.deploy.runtimes import open_model, refuse_telemetry
from mmstvit.deploy.tracing import largest_difference
from mmstvit.errors import UsageError
from mmstvit.layers.steps import TRAINED
from mmstvit.measure.networks import Network
from mmstvit.measure.speed import benchmark as benchmark_networks
from mmstvit.measure.timing import Timing
from mmstvit.models import SimpleFeaturePyramid, STViT, TokenRecovery

refuse_telemetry()
onnx = pytest.importorskip('onnx')
pytest.importorskip('openvino')
pytest.importorskip('nncf')
CLASSES = [str(i) for i in range(10)]


class Outputs(torch.nn.Module):
    """A network whose outputs are a tensor or a tuple."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        outs = self.model(x)
        return outs if isinstance(outs, torch.Tensor) else tuple(outs)


# What is learnt with the network, and necks on two maps of a backbone.
LEARNT = {'DTEM': dict(r=4), 'DynamicViT': dict(keep_rate=0.7), 'LTMP': dict(budget=0.7)}
assert {*LEARNT, 'STGM'} == set(TRAINED)
SMALL = dict(arch=PLAIN, img_size=32, patch_size=4)


def network(name):
    """A small network, and the shape of its input."""
    torch.manual_seed(0)
    if name in BACKBONES:
        return build(name), (3, *BACKBONES[name][2])
    if name == 'necks':
        backbone = STViT(**SMALL, stgm_layer=1, semantic_grid=(2, 2), out_type='featmap', out_indices=(1, 4))
        return torch.nn.Sequential(backbone, TokenRecovery(16, 2), SimpleFeaturePyramid(16, 12)), (3, 32, 32)
    if name in LEARNT:
        reduce = dict(type=name, **LEARNT[name])
        return randomise(STViT(**SMALL, reduce=reduce, with_cls_token=True, out_type='cls_token')), (3, 32, 32)
    return reduce_(timm_vit(depth=2), name, **METHODS[name]), (3, 32, 32)


# Each takes seconds; the files below, and those of test_export_onnx.py, stand for them in `make test`.
@pytest.mark.long
# OpenVINO computes in 32 bits, where the places of Random come out as others: its export refuses it.
@pytest.mark.parametrize('name', [*BACKBONES, 'necks', *LEARNT, *(name for name in METHODS if name != 'Random')])
def test_every_network_in_every_runtime(name, tmp_path):
    model, shape = network(name)
    model = Outputs(model).eval()
    recorded = record(model, shape, batch=None)
    for ending, write in {'onnx': write_onnx, 'xml': write_openvino}.items():
        write(recorded, tmp_path / f'model.{ending}')
        if ending == 'onnx':
            assert not any('Scatter' in operator for operator in operators(onnx.load(tmp_path / 'model.onnx')))
        opened = open_model(tmp_path / f'model.{ending}', threads=1)
        assert opened.shape[1:] == list(shape) and not isinstance(opened.shape[0], int)
        assert opened.precision == 'float32'  # whatever the processor would take
        assert largest_difference(model, opened, [(1, *shape), (3, *shape)], 1e-5) > 0
        fixed = open_model(tmp_path / f'model.{ending}', threads=1, shape=(2, *shape))
        assert fixed.shape == [2, *shape]
        largest_difference(model, fixed, [(2, *shape)], 1e-5)


class ForOneBatch(torch.nn.Module):
    """It takes its batch size for a plain number, as mmdet's Swin does."""

    def forward(self, x):
        return x.view(int(x.shape[0] / 2), 2, -1)


def test_a_network_for_one_batch_size(tmp_path):
    with pytest.raises(UsageError, match='one batch as a plain number'):
        record(ForOneBatch(), (3, 4, 4), batch=None)
    recorded = record(ForOneBatch(), (3, 4, 4), batch=6)
    write_onnx(recorded, tmp_path / 'model.onnx')
    opened = open_model(tmp_path / 'model.onnx', threads=1)
    assert opened.shape == [6, 3, 4, 4]
    largest_difference(ForOneBatch(), opened, [(6, 3, 4, 4)], 0)


class Masked(torch.nn.Module):
    """It draws a mask region by region, as mmdet's Swin does."""

    def forward(self, x):
        mask = x.new_zeros(1, 1, *x.shape[2:])
        for i, rows in enumerate((slice(0, -20), slice(-20, None))):
            mask[:, :, rows] = i + 1
        return x * mask


def test_what_no_input_changes_is_written_as_a_constant(tmp_path):
    write_onnx(record(Masked(), (3, 64, 64), batch=1), tmp_path / 'model.onnx')
    assert operators(onnx.load(tmp_path / 'model.onnx')) == {'Mul'}
    largest_difference(Masked(), open_model(tmp_path / 'model.onnx', threads=1), [(1, 3, 64, 64)], 0)


# ------------------------------------------------------------------------------------------------ files of a command
@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A folder with a config, weights that tell classes apart, and pictures of digits in folders."""
    folder = tmp_path_factory.mktemp('files')
    (folder / 'config.py').write_text(SHALLOW)
    torch.manual_seed(0)
    model = get_model(str(folder / 'config.py'))
    torch.nn.init.normal_(model.head.layers.head.weight, std=0.5)
    torch.save(dict(meta=dict(dataset_meta=dict(classes=CLASSES)), state_dict=model.state_dict()), folder / 'a.pth')
    images, labels = digit_scans('val')
    for i, (image, label) in enumerate(zip(images[:12], labels)):
        (folder / 'images' / str(label)).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / 'images' / str(label) / f'{i}.png'), image)
    return folder


@pytest.fixture(scope='module')
def quantised(files):
    """An int8 file of OpenVINO, made by the command, and what it has printed."""
    out = files / 'out' / 'int8.xml'
    command = [str(files / 'config.py'), str(files / 'a.pth'), str(out), '--int8', str(files / 'images')]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        export([*command, '--min-agreement', '0'])
    return out, printed.getvalue().splitlines()[-3:]


def environment():

    return {**os.environ, 'PYTHONPATH': str(ROOT)}


def test_int8_is_in_the_file_and_judged(files, quantised):
    out, (written, checked, judged) = quantised
    assert sorted(file.name for file in out.parent.iterdir()) == ['int8.bin', 'int8.xml']  # nothing unfinished
    assert str(out) in written and str(out.with_suffix('.bin')) in written
    assert 'OpenVINO differs from PyTorch by' in checked and checked.endswith('before int8')
    assert (
        judged.startswith('int8, calibrated on 6 images: ')
        and 'of 6 held-out images have the class of float32' in judged
    )
    assert 'top-1' in judged and 'in float32' in judged  # the folders are named as the classes
    assert 'element_type="i8"' in out.read_text() and open_model(out).metadata['weights'] == 'int8'


def test_runs_without_torch(files, quantised):
    """With mmstvit there, and no telemetry of OpenVINO."""
    out, _ = quantised
    image = next((files / 'images').rglob('*.png'))
    code = (
        'import sys\n'
        "blocked = dict.fromkeys(('torch', 'mmengine', 'mmcv', 'mmpretrain', 'onnxruntime', 'nncf'))\n"
        'sys.modules.update(blocked)\n'
        'from mmstvit.cli.main import main\n'
        "main(['run-exported', *sys.argv[1:]])\n"
        "assert sys.modules['openvino_telemetry'] is None and 'openvino' in sys.modules\n"
    )
    command = [sys.executable, '-c', code, str(out), str(image), '--threads', '1']
    result = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    expected = inference_model(str(files / 'config.py'), str(files / 'a.pth'), str(image), device='cpu')
    score = float(result.stdout.split()[-1])
    assert result.stdout.startswith(f'{image}: ') and abs(score - expected['pred_score']) < 0.2


@pytest.fixture(scope='module')
def model(files):
    return get_model(str(files / 'config.py'), str(files / 'a.pth'))


def test_int8_that_disagrees_is_refused(files, model, tmp_path):
    samples = int8.read_samples(model, int8.Calibration(str(files / 'images')), (3, 32, 32))
    classes = int8.Judge(model, samples[1], 8).logits().argmax(-1)
    share = float((classes == classes[0]).double().mean())
    judged = int8.judge(model, of_one_class(int(classes[0]), tmp_path / 'a.onnx'), samples, share)
    assert judged.agreement == share and judged.top1 == float((samples[1].labels == classes[0]).double().mean())
    other = of_one_class((int(classes[0]) + 1) % 10, tmp_path / 'b.onnx')
    with pytest.raises(UsageError, match=r'of 6 held-out images, less than 90.0% \(--min-agreement\)'):
        int8.judge(model, other, samples, 0.9)


def of_one_class(label, path):
    """A file that gives one class for all images."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [helper.make_node('Flatten', ['input'], ['x']), helper.make_node('Gemm', ['x', 'zeros', 'one'], ['scores'])]
    values = [
        helper.make_tensor_value_info('input', TensorProto.FLOAT, ['batch', 3, 32, 32]),
        helper.make_tensor_value_info('scores', TensorProto.FLOAT, ['batch', 10]),
    ]
    weights = dict(zeros=np.zeros((3072, 10), np.float32), one=np.eye(10, dtype=np.float32)[label])
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, 'constant', values[:1], values[1:], tensors)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9), path)
    return path


@pytest.mark.long
def test_precision_is_in_the_file(files, model, tmp_path):
    sizes = {}
    for dtype in ('float32', 'bfloat16'):
        export_model(model, tmp_path / f'{dtype}.xml', dtype=dtype)
        meta = open_model(tmp_path / f'{dtype}.xml', 1).metadata
        assert meta['precision'] == dtype and meta['weights'] == {'bfloat16': 'float16'}.get(dtype, dtype)
        sizes[dtype] = (tmp_path / f'{dtype}.bin').stat().st_size
    assert sizes['bfloat16'] < 0.6 * sizes['float32']


@pytest.mark.parametrize('options', [[], pytest.param(['--dynamic-size'], marks=pytest.mark.long)])
def test_torch_export(files, fails, options, capfd):
    """Its pickles run for those alone who trust it."""
    out, image = files / 'model.pt2', next((files / 'images').rglob('*.png'))
    export([str(files / 'config.py'), str(files / 'a.pth'), str(out), '--dynamic-batch', *options])
    said = f'checked on {6 if options else 2} inputs: torch.export differs from PyTorch by'
    assert said in capfd.readouterr().out
    assert 'give --trust-checkpoint if you know who made it' in fails(run, out, image)
    run([str(out), str(image), '--trust-checkpoint'])
    expected = inference_model(str(files / 'config.py'), str(files / 'a.pth'), str(image), device='cpu')
    line = capfd.readouterr().out.splitlines()[0]
    assert line == f'{image}: {expected["pred_class"]} {expected["pred_score"]:.4f}'


@pytest.mark.parametrize(
    'options, line',
    [
        (['a.onnx', '--dtype', 'bfloat16'], '--dtype bfloat16 is for *.xml files of OpenVINO'),
        (['a.pt2', '--int8', 'images'], '--int8 is for *.onnx and *.xml files'),
        (['a.xml', '--int8', 'images', '--dtype', 'float16'], '--int8 and --dtype float16 exclude each other'),
        (['a.xml', '--images', '8'], '--images has no effect without --int8'),
        (['a.xml', '--int8', 'images', '--images', '1'], '--images 1: half of them calibrate'),
        (['a.xml', '--int8', 'images', '--min-agreement', '97'], '--min-agreement 97.0: it is a share'),
        (
            ['a.xml', '--int8', 'images', '--shape', '64', '64'],
            'gives images of 3 x 32 x 32, and the file is to take 3',
        ),
        (['a.xml', '--format', 'onnx'], 'a.xml: name it *.onnx'),
        (['a.txt'], 'a.txt: name it *.onnx or *.xml or *.pt2'),
    ],
)
def test_wrong_options_of_an_export(files, fails, monkeypatch, options, line):
    monkeypatch.chdir(files)
    assert line in fails(export, 'config.py', 'a.pth', *options)


def test_weights_beside_are_not_written_over(files, tmp_path, fails):
    """The ``*.bin`` of a ``*.xml`` may be the checkpoint, or another model's."""
    for name in ('model.bin', 'other.bin'):
        shutil.copy(files / 'a.pth', tmp_path / name)
    config, before = files / 'config.py', (files / 'a.pth').read_bytes()
    assert 'model.bin would be written over' in fails(export, config, tmp_path / 'model.bin', tmp_path / 'model.xml')
    assert 'other.bin would be written over' in fails(export, config, files / 'a.pth', tmp_path / 'other.xml')
    (tmp_path / 'model.xml').write_text('')
    assert 'which is read' in fails(export, config, tmp_path / 'model.bin', tmp_path / 'model.xml')
    assert all((tmp_path / name).read_bytes() == before for name in ('model.bin', 'other.bin'))


@pytest.mark.parametrize(
    'args, line',
    [
        (['a.bin'], 'a.bin is no exported model: their names end in .onnx, .xml, .pt2'),
        (['broken.xml'], 'broken.xml is no model of OpenVINO'),
        (['broken.xml', '--trust-checkpoint'], '--trust-checkpoint has no effect'),
        (['broken.xml', '--threads', '0'], '--threads 0: it must be at least 1'),
    ],
)
def test_wrong_arguments_of_the_runner(tmp_path, fails, monkeypatch, args, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'broken.xml').write_text('<net>')
    name, *options = args
    assert line in fails(run, name, 'image.png', *options)


# ------------------------------------------------------------------------------------------------------- benchmark
QUICK = ['--rounds', '2', '--min-time', '0', '--device', 'cpu', '--batch-size', '2', '--threads', '1']


def test_ratios_are_to_the_baseline_in_the_same_back_end():
    networks = [
        Network(label, 'timm', torch.nn.Flatten(), (2, 2), backend=backend, stated=(1, 1))
        for label in ('ours', 'base')
        for backend in ('eager', 'fast')
    ]
    found = benchmark_networks(networks, Timing(rounds=2, min_time=0), 2, [1])
    rows = found['results']
    for row, own in zip(rows, (rows[2], rows[3], rows[2], rows[3])):
        for name, base in (('ratio', own), ('ratio_to_eager', rows[2])):
            ratios = [b / t for b, t in zip(base['rounds'], row['rounds'])]
            assert row[name]['median'] == pytest.approx(np.median(ratios))
    assert [row['backend'] for row in rows] == ['eager', 'fast'] * 2


@pytest.mark.long
def test_back_ends_side_by_side(files, tmp_path, capsys):
    """Each is compared with the baseline in the same back end, and with the eager one."""
    dense = tmp_path / 'dense.py'
    dense.write_text(
        TINY.replace('stgm_layer=1,', 'stgm_layer=4,').replace('semantic_grid=(2, 2)', 'semantic_grid=None')
    )
    out = [str(tmp_path / name) for name in ('a.json', 'a.csv', 'a.png')]
    benchmark(
        [str(files / 'config.py'), '--baseline', str(dense), '--backends', 'openvino-int8', 'openvino', *QUICK]
        + ['--json', out[0], '--csv', out[1], '--plot', out[2]]
    )
    report = json.loads(Path(out[0]).read_text())
    rows = report['results']
    ours, base = rows[:3], rows[3:]
    assert [(row['network'], row['backend']) for row in rows] == [
        (name, backend) for name in ('config', 'dense') for backend in ('eager', 'openvino', 'openvino-int8')
    ]
    for own, other in zip(ours, base):
        assert other['ratio']['median'] == 1
        assert own['multiply_adds'] == ours[0]['multiply_adds'] < other['multiply_adds']
    assert 'int8 calibrated on random inputs' in report['environment']['runtimes']
    shown = capsys.readouterr().out
    assert 'than eager' in shown and 'openvino-int8' in shown
    table = csv.DictReader(Path(out[1]).read_text().splitlines())
    assert [row['backend'] for row in table] == ['eager', 'openvino', 'openvino-int8'] * 2


@pytest.mark.parametrize(
    'options, line',
    [
        (['--compile'], '--backends is run as it is: leave --compile out'),
        (['--dtype', 'bfloat16'], '--backends is run as it is: leave --dtype out'),
    ],
)
def test_settings_that_back_ends_do_not_have(files, fails, options, line):
    assert line in fails(benchmark, files / 'config.py', '--backends', 'openvino', *QUICK, *options)


def test_a_file_of_openvino_in_the_benchmark(files, quantised, tmp_path, fails):
    out, _ = quantised
    benchmark([f'openvino:{out}', *QUICK[:-4], '--batch-size', '1', '--json', str(tmp_path / 'a.json')])
    (row,) = json.loads((tmp_path / 'a.json').read_text())['results']
    assert row['network'] == 'openvino:int8.xml' and row['peak_memory'] is None and row['parameters'] > 0
    assert 'its file is named *.onnx' in fails(benchmark, f'onnx:{out}', *QUICK)
    assert '--backends exports the networks itself' in fails(
        benchmark, f'openvino:{out}', *QUICK, '--backends', 'openvino'
    )
