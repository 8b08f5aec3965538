"""Export to ONNX, with the commands as a user calls them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from run_helpers import ROOT, SHALLOW, TINY, says

from mmstvit.apis import get_model, inference_model

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
onnxruntime = pytest.importorskip('onnxruntime')

from mmstvit.cli.benchmark import main as benchmark  # noqa: E402
from mmstvit.cli.export import main as export  # noqa: E402
from mmstvit.deploy import formats  # noqa: E402
from mmstvit.deploy.run_exported import main as run  # noqa: E402
from mmstvit.deploy.runtimes import open_model, read_metadata  # noqa: E402

SWIN = 'arch=dict(embed_dims=8, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 2))'
PLAIN = 'arch=dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32)'

# (config, input size, options): tokens of the whole image leave the size open, windows do not. An export takes half a
# minute, so these four stand for all: tokens of whole images, overlapping ones, windows with recovery, and of clips.
OPEN = ['--dynamic-batch', '--dynamic-size']
CONFIGS = {
    'STViT': (TINY.replace('num_layers=4', 'num_layers=3'), (32, 32), OPEN),
    'STViT shallow': (SHALLOW, (32, 32), OPEN),
    'T2T-ViT': (
        f"_base_ = ['mmstvit::digits/stvit-t2t_digits.py']\n"
        f'model = dict(backbone=dict({PLAIN}, token_dims=8, stgm_layer=1), head=dict(in_channels=16))\n',
        (128, 128),
        ['--dynamic-batch'],
    ),
    'STViTSwin 3D': (
        f"_base_ = ['mmstvit::digits/stvit-swin3d_digits.py']\n"
        f'model = dict(backbone=dict({SWIN.replace("6", "2")}), cls_head=dict(in_channels=64))\n',
        (8, 48, 48),
        ['--dynamic-batch'],
    ),
    'STViTR dense': (
        f"_base_ = ['mmstvit::digits/mask-rcnn_stvit-r_digits.py']\n"
        f'model = dict(backbone=dict({SWIN}), neck=dict(in_channels=[8, 16, 32, 64], out_channels=16))\n',
        (416, 160),
        ['--dynamic-batch', '--shape', '416', '160'],
    ),
    'UPerNet': (
        f"_base_ = ['mmstvit::digits/upernet_stvit-r_digits.py']\n"
        f'model = dict(\n'
        f'    backbone=dict({SWIN}), auxiliary_head=dict(in_channels=32, channels=8),\n'
        f'    decode_head=dict(in_channels=[8, 16, 32, 64], channels=8))\n',
        (96, 128),
        ['--dynamic-batch', '--shape', '96', '128'],
    ),
}


def prepared(folder, name):
    """A config and a checkpoint of random weights."""
    text, size, options = CONFIGS[name]
    config, checkpoint = folder / 'config.py', folder / 'weights.pth'
    config.write_text(text)
    torch.manual_seed(0)
    model = get_model(str(config))
    names = [f'class {i}' for i in range(10)]
    torch.save(dict(meta=dict(dataset_meta=dict(classes=names)), state_dict=model.state_dict()), checkpoint)
    return model, config, checkpoint, size, options


LONG = ('T2T-ViT', 'STViTSwin 3D', 'UPerNet')  # the others stand for them in `make test`


@pytest.fixture(
    scope='module',
    params=[
        pytest.param(name, marks=pytest.mark.long) if name in LONG else name
        for name in CONFIGS
        if name != 'STViT shallow'
    ],
)
def exported(request, tmp_path_factory):
    """Each form, exported: name, model, input size, options, file."""
    if toolbox := {'STViTR dense': 'mmdet', 'UPerNet': 'mmseg'}.get(request.param):
        pytest.importorskip(toolbox)
    folder = tmp_path_factory.mktemp('onnx')
    model, config, checkpoint, size, options = prepared(folder, request.param)
    path = folder / 'out' / 'model.onnx'
    export([str(config), str(checkpoint), str(path), *options])
    assert [file.name for file in path.parent.iterdir()] == ['model.onnx']  # nothing unfinished, no data beside it
    return request.param, model, size, options, path


def outputs_of(name, model, x):
    with torch.no_grad():
        if name == 'STViTR dense':
            return [level.numpy() for level in model.extract_feat(x)]
        if name == 'UPerNet':
            return F.interpolate(model(x, mode='tensor'), x.shape[2:], mode='bilinear').softmax(1).numpy()
        if name == 'STViTSwin 3D':
            return model.cls_head(model.backbone(x)).softmax(-1).numpy()
        return model(x, mode='tensor').softmax(-1).numpy()


def test_outputs_are_those_of_the_model(exported):
    name, model, size, options, path = exported
    opened, sizes = open_model(path, threads=1), [size]
    if '--dynamic-size' in options:
        sizes += [(size[0] + 7, size[1] + 64), (2 * size[0], size[1] + 16)]
    for batch in (1, 4):
        for hw in sizes:
            x = torch.randn(batch, 3, *hw)
            expected, got = outputs_of(name, model, x), opened.run(x.numpy())
            for e, g in zip(expected if isinstance(expected, list) else [expected], got, strict=True):
                np.testing.assert_allclose(g, e, atol=1e-4)


def test_operators_and_axes(exported):
    name, _, size, options, path = exported
    model = onnx.load(str(path))
    found = formats.operators(model)
    assert not any(op.startswith('Scatter') or '::' in op for op in found)
    assert 'MatMul' in found or 'Gemm' in found
    dims = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ['batch', 3, *(('height', 'width') if '--dynamic-size' in options else size)]
    names = [output.name for output in model.graph.output]
    assert names == (['level_0', 'level_1', 'level_2', 'level_3'] if name == 'STViTR dense' else ['scores'])


def test_benchmark_runs_it_beside_pytorch(exported, tmp_path, fails):
    name, model, size, options, path = exported
    out, config = tmp_path / 'speed.json', path.parent.parent / 'config.py'
    command = [str(config), f'onnx:{path}', '--batch-size', '2', '--rounds', '2', '--min-time', '0', '--device', 'cpu']
    if name == 'STViTR dense':
        assert 'holds a backbone with its neck' in fails(benchmark, *command)
        return
    benchmark([*command, '--json', str(out), *options[1:]] if '--shape' in options else [*command, '--json', str(out)])
    ours, exported_row = json.loads(out.read_text())['results']
    assert exported_row['network'] == 'onnx:model.onnx' and len(exported_row['rounds']) == 2
    for key in ('multiply_adds', 'parameters'):
        assert exported_row[key] == ours[key] > 0
    assert exported_row['peak_memory'] is None  # ONNX Runtime does not tell


@pytest.mark.parametrize(
    'options,line',
    [
        (['--train-step'], 'leave --train-step out'),
        (['--compile'], 'leave --compile out'),
        (['--dtype', 'bfloat16'], 'leave --dtype out'),
        (['--part', 'backbone'], 'leave --part backbone out'),
        ([], 'there is no model nowhere.onnx'),
    ],
)
def test_benchmark_options_that_do_not_apply(options, line, fails):
    assert line in fails(benchmark, 'onnx:nowhere.onnx', '--device', 'cpu', *options)


def test_metadata(exported):
    name, model, size, options, path = exported
    meta = read_metadata(open_model(path), path)
    assert meta['classes'] == [f'class {i}' for i in range(10)]
    assert meta['mean'] == model.data_preprocessor.mean.flatten().tolist()
    assert meta['std'] == model.data_preprocessor.std.flatten().tolist()
    assert meta['layout'] == ('NCTHW' if name == 'STViTSwin 3D' else 'NCHW')
    assert meta['channel_order'] == 'RGB'


# ------------------------------------------------------------------------------------------------ run_exported.py
WITHOUT_TORCH = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain', *BLOCKED):
            raise ModuleNotFoundError('No module named ' + repr(name), name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
sys.path.insert(0, '')
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder, rng, paths = tmp_path_factory.mktemp('images'), np.random.default_rng(0), []
    for i, size in enumerate([(40, 52), (61, 33)]):
        paths.append(str(folder / f'{i}.png'))
        cv2.imwrite(paths[-1], cv2.GaussianBlur(rng.integers(0, 255, (*size, 3), dtype=np.uint8), (5, 5), 1))
    return paths


@pytest.fixture(scope='module')
def fixed(tmp_path_factory):
    """One whose sizes are fixed, the batch too: folder, config, checkpoint, file."""
    folder = tmp_path_factory.mktemp('fixed')
    model, config, checkpoint, _, _ = prepared(folder, 'STViT shallow')
    # Random weights score all classes alike: a head that tells them apart.
    torch.nn.init.normal_(model.head.layers.head.weight, std=2.0)
    names = [f'class {i}' for i in range(10)]
    torch.save(dict(meta=dict(dataset_meta=dict(classes=names)), state_dict=model.state_dict()), checkpoint)
    export([str(config), str(checkpoint), str(folder / 'one.onnx')])
    return folder, config, checkpoint, folder / 'one.onnx'


@pytest.mark.parametrize('tool', ['tools/deployment/run_exported.py', 'mmstvit/deploy/run_exported.py', 'copied'])
def test_same_classes_and_scores_without_torch(tool, images, fixed, tmp_path):
    """With mmstvit there, and with three of its files alone."""
    blocked, folder = (), ROOT
    if tool == 'copied':
        tool, blocked, folder = tmp_path / 'run_exported.py', ('mmstvit',), tmp_path
        for file in ('deploy/run_exported.py', 'deploy/runtimes.py', 'io/image_check.py'):
            shutil.copy(ROOT / 'mmstvit' / file, tmp_path)
    _, config, checkpoint, path = fixed
    out = tmp_path / 'out.json'
    expected = inference_model(str(config), str(checkpoint), images, device='cpu')
    code = f'BLOCKED = {blocked}' + WITHOUT_TORCH
    command = [sys.executable, '-c', code, str(ROOT / tool), str(path), *images, '--out', str(out)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert result.returncode == 0, result.stderr
    found = json.loads(out.read_text())
    for line, image, got, want in zip(result.stdout.splitlines(), images, found, expected, strict=True):
        assert got['pred_class'] == want['pred_class'] and got['pred_label'] == want['pred_label']
        np.testing.assert_allclose(got['pred_scores'], want['pred_scores'], atol=1e-3)
        assert line == f'{image}: {got["pred_class"]} {got["pred_score"]:.4f}'
    assert max(want['pred_score'] for want in expected) > 0.2


# ---------------------------------------------------------------------------------------------------- wrong inputs
@pytest.fixture(scope='module')
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp('small')
    return folder, prepared(folder, 'STViT shallow')[1:3]


def test_a_file_that_disagrees_is_not_left(small, fails, monkeypatch):
    folder, (config, checkpoint) = small
    before = sorted(folder.iterdir())
    session = onnxruntime.InferenceSession
    run = session.run
    monkeypatch.setattr(session, 'run', lambda *args: [scores + 0.01 for scores in run(*args)])
    line = fails(export, config, checkpoint, folder / 'wrong.onnx')
    assert 'ONNX Runtime differs from PyTorch by' in line and 'nothing is written' in line
    assert sorted(folder.iterdir()) == before


def test_scatter_is_refused():
    node = onnx.helper.make_node('ScatterND', ['a', 'b', 'c'], ['d'])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], 'g', [], []))
    with pytest.raises(Exception, match='operators that are not exported: ScatterND'):
        formats.check_operators(model)


def test_windows_leave_no_size_open(tmp_path, fails):
    _, config, checkpoint, _, _ = prepared(tmp_path, 'STViTSwin 3D')
    line = fails(export, config, checkpoint, tmp_path / 'a.onnx', '--dynamic-size')
    assert says(line, '--dynamic-size', 'STViTSwin3D', '--shape')


def test_without_dynamic_batch_it_is_one(fixed, images, capfd, fails):
    folder, *_ = fixed
    assert open_model(folder / 'one.onnx').shape == [1, 3, 32, 32]
    assert 'name it *.json' in fails(run, folder / 'one.onnx', images[0], '--out', 'a.txt')
    broken = {
        'absent.png': (None, 'there is no such file'),
        'cut.png': (Path(images[0]).read_bytes()[:-30], 'it is incomplete or broken'),
        'text.png': (b'<html>', 'it is no image, or of a kind that is not read here'),
    }
    for name, (content, _) in broken.items():
        if content is not None:
            (folder / name).write_bytes(content)
    paths = [images[0], *(folder / name for name in broken), images[1]]
    with pytest.raises(SystemExit) as stop:  # the others are not lost
        run([str(arg) for arg in (folder / 'one.onnx', *paths, '--out', folder / 'found.json')])
    out, err = capfd.readouterr()
    assert stop.value.code == 1 and [line.split(': ')[0] for line in out.splitlines()] == images
    assert err.splitlines() == [
        *(f'error: {folder / name}: {said}' for name, (_, said) in broken.items()),
        '3 of 5 images could not be inferred',
    ]
    assert [result['image'] for result in json.loads((folder / 'found.json').read_text())] == images


@pytest.mark.parametrize(
    'options, message',
    [
        (['a.onnx', '--shape', '32'], 'it takes height and width'),
        (['a.pb'], 'name it *.onnx'),
    ],
)
def test_wrong_arguments(small, fails, options, message):
    _, (config, checkpoint) = small
    assert message in fails(export, config, checkpoint, *options)
