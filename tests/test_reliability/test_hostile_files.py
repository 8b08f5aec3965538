"""Files that want to run code, that unfold or that were changed on the way: refused in a line, wherever they are read.

The payloads make a folder, so that a test sees whether anything was run.
"""

import argparse
import builtins
import hashlib
import http.server
import importlib
import io
import os
import pickle
import shutil
import subprocess
import zipfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from published_files import classification_file
from run_helpers import TINY, Call, serving

from mmstvit import get_model, inference_model
from mmstvit.cli.convert import main as convert
from mmstvit.cli.export import main as export
from mmstvit.cli.test import main as evaluate
from mmstvit.cli.train import main as train
from mmstvit.io.checkpoints import CheckpointError, UnsafeCheckpointError, load, save_safetensors, trust_checkpoints
from mmstvit.models import STViTSwin

# Two runs of one second share mmengine's log.
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created')


PAYLOADS = {
    'posix.mkdir': lambda mark: Call(os.mkdir, mark),
    'exec': lambda mark: Call(builtins.exec, f'import os; os.mkdir({mark!r})'),
    'commands.Popen': lambda mark: Call(subprocess.Popen, ['mkdir', mark]),  # subprocess, as protocol 2 has it
    # By way of what mmengine's own list lets through.
    'getattr': lambda mark: Call(getattr, HistoryBuffer, '__init__'),
    'numpy.dtype[O': lambda mark: Call(np.dtype, 'O'),
    'numpy.load': lambda mark: Call(np.load, mark),
}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """One epoch on ten digits, by the command: ``config``, ``work_dir``, ``checkpoint``."""
    folder = tmp_path_factory.mktemp('run')
    config = folder / 'tiny.py'
    config.write_text(TINY + 'train_cfg = dict(max_epochs=1)\n')
    options = [f'{name}_dataloader.dataset.indices=10' for name in ('train', 'val', 'test')]
    train([str(config), '--work-dir', str(folder / 'work'), '--cfg-options', *options])
    return SimpleNamespace(
        config=config, work_dir=folder / 'work', checkpoint=folder / 'work' / 'epoch_1.pth', options=options
    )


@pytest.fixture
def hostile(run, tmp_path):
    """The checkpoint of the run with a call in it, that makes the folder ``mark``."""
    mark = tmp_path / 'mark'
    content = torch.load(run.checkpoint, weights_only=False)
    content['meta']['note'] = Call(os.mkdir, str(mark))
    path = tmp_path / 'hostile.pth'
    torch.save(content, path)
    return SimpleNamespace(path=path, mark=mark)


# ------------------------------------------------------------------------------------------------ nothing is run
@pytest.mark.parametrize('name', PAYLOADS)
@pytest.mark.parametrize('form', ['zip', 'legacy', 'inside a tensor', 'plain pickle', 'protocol 4'])
def test_calls_are_refused(tmp_path, name, form):
    mark = tmp_path / 'mark'
    path = tmp_path / 'file.pth'
    call = PAYLOADS[name](str(mark))
    content = dict(meta={}, state_dict={'weight': torch.ones(2), 'bias': call})
    if form == 'inside a tensor':
        tensor = torch.ones(2)
        tensor.note = call
        content['state_dict']['bias'] = tensor
    if form == 'plain pickle':
        path.write_bytes(pickle.dumps(dict(state_dict=call), protocol=2))
    else:
        torch.save(
            content,
            path,
            _use_new_zipfile_serialization=form != 'legacy',
            pickle_protocol=4 if form == 'protocol 4' else 2,
        )
    for read in (load, CheckpointLoader.load_checkpoint):
        with pytest.raises(CheckpointError) as error:
            read(str(path))
        line = str(error.value)
        assert line.startswith(f'{path}: ') and '\n' not in line
        if form in ('zip', 'legacy', 'inside a tensor'):
            assert isinstance(error.value, UnsafeCheckpointError)
            assert f'it holds {name}' in line and '--trust-checkpoint' in line and 'trust_checkpoint=True' in line
    assert not mark.exists()


def commands(run, source, work_dir):
    """All that reads a checkpoint, from a path or a URL: ``(command, its arguments)``."""
    common = ('--work-dir', work_dir)
    return {
        'train': (train, run.config, *common, '--cfg-options', f'load_from={source}', *run.options),
        'resume': (train, run.config, *common, '--resume', source, '--cfg-options', *run.options),
        'init_cfg': (
            train,
            run.config,
            *common,
            '--cfg-options',
            'model.init_cfg.type=Pretrained',
            f'model.init_cfg.checkpoint={source}',
            *run.options,
        ),
        'test': (evaluate, run.config, source, *common, '--cfg-options', *run.options),
        'convert': (convert, source, work_dir / 'converted.pth'),
        'export': (export, run.config, source, work_dir / 'model.onnx'),
    }


@pytest.mark.parametrize('name', ['train', 'resume', 'init_cfg', 'test', 'convert', 'export'])
def test_refused_in_every_command_unless_trusted(run, hostile, fails, tmp_path, name):
    main, *args = commands(run, hostile.path, tmp_path)[name]
    line = fails(main, *args)
    assert line.startswith(f'error: cannot read the checkpoint {hostile.path}: it holds posix.mkdir'), line
    assert not hostile.mark.exists()
    if name in ('convert', 'export'):
        # What fails then comes after it was read: it has no published layout, or no network is traced at this size.
        fails(main, *args, '--trust-checkpoint', *(['--shape', '1'] if name == 'export' else []))
    else:
        main([str(arg) for arg in (*args, '--trust-checkpoint')])
    assert hostile.mark.is_dir()


@pytest.mark.parametrize('command', ['infer', 'show_tokens', 'show_cam'])
def test_refused_where_images_are_inferred_unless_trusted(run, hostile, fails, tmp_path, command):
    main = importlib.import_module(f'mmstvit.cli.{command}').main
    image = tmp_path / 'image.png'
    cv2.imwrite(str(image), np.zeros((32, 32, 3), np.uint8))
    args = [run.config, image, '--checkpoint', hostile.path]
    if command != 'infer':
        args = [run.config, hostile.path, image, '--show-dir', tmp_path]
    line = fails(main, *args)
    assert f'{hostile.path}: it holds posix.mkdir' in line and '--trust-checkpoint' in line
    assert not hostile.mark.exists()
    main([str(arg) for arg in (*args, '--trust-checkpoint')])
    assert hostile.mark.is_dir()


def test_refused_from_a_url_and_kept(run, hostile, web, fails, tmp_path, caches):
    shutil.copy(hostile.path, web.folder / 'hostile.pth')
    for name in ('test', 'init_cfg'):
        main, *args = commands(run, web.url('hostile.pth'), tmp_path)[name]
        assert 'it holds posix.mkdir' in fails(main, *args)
    assert 'hostile.pth' in kept(caches) and not hostile.mark.exists()
    main([str(arg) for arg in (*args, '--trust-checkpoint')])
    assert hostile.mark.is_dir()


def test_refused_in_python_unless_trusted(run, hostile):
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(UnsafeCheckpointError, match='trust_checkpoint=True'):
        get_model(run.config, hostile.path)
    with pytest.raises(UnsafeCheckpointError, match='trust_checkpoint=True'):
        inference_model(run.config, hostile.path, image)
    assert not hostile.mark.exists()
    assert 'pred_label' in inference_model(run.config, hostile.path, image, trust_checkpoint=True)
    hostile.mark.rmdir()
    get_model(run.config, hostile.path, trust_checkpoint=True)
    assert hostile.mark.is_dir()
    with pytest.raises(UnsafeCheckpointError):  # for that call alone
        get_model(run.config, hostile.path)
    with pytest.raises(TypeError, match='leave checkpoint and trust_checkpoint out'):
        inference_model(get_model(run.config), image, trust_checkpoint=True)


def test_trust_ends_with_its_block(hostile):
    with trust_checkpoints(), trust_checkpoints(False):
        load(str(hostile.path))
    hostile.mark.rmdir()
    with pytest.raises(UnsafeCheckpointError):
        load(str(hostile.path))
    assert not hostile.mark.exists()


def test_old_pytorch_is_not_relied_on(run, monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.5.1+cpu')
    with pytest.raises(UnsafeCheckpointError, match=r'PyTorch 2.5.1\+cpu .* 2.6.0'):
        load(str(run.checkpoint))
    with trust_checkpoints():
        assert 'state_dict' in load(str(run.checkpoint))


def test_packed_records_are_refused(tmp_path):
    """A small file must not unfold to gigabytes."""
    torch.save(dict(state_dict=dict(weight=torch.zeros(1 << 20))), tmp_path / 'plain.pth')
    with zipfile.ZipFile(tmp_path / 'plain.pth') as plain:
        with zipfile.ZipFile(tmp_path / 'packed.pth', 'w', zipfile.ZIP_DEFLATED) as packed:
            for name in plain.namelist():
                packed.writestr(name, plain.read(name))
    assert (tmp_path / 'packed.pth').stat().st_size < 1e5
    with pytest.raises(CheckpointError, match='packed.pth: torch.save has not written it in its usual form'):
        load(str(tmp_path / 'packed.pth'))


# ------------------------------------------------------------------------------------------- what must be readable
def same(one, two):
    """Equality of what two files hold, the types of arrays and scalars included."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two) and one.dtype == two.dtype
    if isinstance(one, (np.ndarray, np.generic)):
        kinds = isinstance(one, np.ndarray), isinstance(two, np.ndarray)
        return one.dtype == two.dtype and kinds[0] == kinds[1] and np.array_equal(one, two)
    if isinstance(one, HistoryBuffer) and isinstance(two, HistoryBuffer):
        # Writing one leaves a note in it.
        one, two = ({k: v for k, v in vars(part).items() if k != 'statistics_methods'} for part in (one, two))
        return same(one, two)
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(value, two[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return one == two


def test_what_mmengine_writes_is_read(run):
    whole = torch.load(run.checkpoint, weights_only=False)
    found = load(str(run.checkpoint))
    assert same(whole, found)
    buffers = found['message_hub']['log_scalars']
    assert buffers and all(type(buffer) is HistoryBuffer for buffer in buffers.values())
    name, buffer = next(iter(buffers.items()))
    assert buffer.mean() == whole['message_hub']['log_scalars'][name].mean()
    buffer.update(1.0)
    again = io.BytesIO()
    torch.save(found, again)
    again.seek(0)
    assert same(found, torch.load(again, weights_only=False)) and b'mmstvit.io.checkpoints' not in again.getvalue()
    again.seek(0)
    assert same(found, load(again))


def as_numpy_1(path):
    """Names as numpy 1 writes them, in PyTorch's older format, whose pickle is text enough to be edited."""
    content = path.read_bytes()
    assert b'cnumpy._core.multiarray\n' in content
    path.write_bytes(content.replace(b'cnumpy._core.multiarray\n', b'cnumpy.core.multiarray\n'))


@pytest.mark.parametrize('numpy_1', [False, True])
def test_numbers_of_numpy_are_read(tmp_path, numpy_1):
    columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    content = dict(
        scalars=[np.float64(0.5), np.float32(1.5), np.int64(-3), np.bool_(True), np.str_('x')],
        arrays=[np.arange(4), columns, np.array([1, 2], '>f8'), np.zeros((0, 3), np.float16), np.array(['ab', 'c'])],
        best=HistoryBuffer([1.0, 2.0], [1, 1]),
    )
    path = tmp_path / 'file.pth'
    torch.save(content, path, _use_new_zipfile_serialization=False)
    if numpy_1:
        as_numpy_1(path)
    found = load(str(path))
    assert same(torch.load(path, weights_only=False), found)
    assert found['arrays'][2].tolist() == [1, 2]  # in the other byte order
    assert [array.flags.f_contiguous for array in found['arrays'][:2]] == [True, True]
    assert np.append(found['arrays'][0], 4).tolist() == [0, 1, 2, 3, 4]


def test_state_of_a_dtype_is_not_taken(tmp_path):
    """It has flags that make numpy take numbers for addresses of objects."""

    class Type:
        def __reduce__(self):
            return np.dtype, ('f8', False, True), (3, '<', None, None, None, -1, -1, 63)

    class Array:
        def __reduce__(self):
            make = np.zeros(0).__reduce__()[0]
            return make, (np.ndarray, (0,), b'b'), (1, (2,), Type(), False, bytes(16))

    torch.save(dict(array=Array()), tmp_path / 'file.pth')
    array = load(str(tmp_path / 'file.pth'))['array']
    assert array.dtype == np.float64 and not array.dtype.hasobject and array.tolist() == [0, 0]


def test_files_of_authors_are_read(tmp_path):
    """DeiT's training files hold a Namespace, Swin's a node of yacs."""
    yacs = pytest.importorskip('yacs.config')
    weights = {'weight': torch.arange(3.0)}
    node = yacs.CfgNode(dict(MODEL=dict(NAME='swin', DROP=0.2), DATA=[1, 2]))
    node.freeze()
    torch.save(dict(model=weights, args=argparse.Namespace(lr=0.1, betas=[0.9])), tmp_path / 'deit.pth')
    torch.save(dict(model=weights, config=node, max_accuracy=81.0), tmp_path / 'swin.pth')
    torch.save(dict(state_dict=weights, meta=dict(cfg=ConfigDict(a=dict(b=1)))), tmp_path / 'mm.pth')
    deit, swin, mm = (load(str(tmp_path / f'{name}.pth')) for name in ('deit', 'swin', 'mm'))
    assert deit['args'] == argparse.Namespace(lr=0.1, betas=[0.9]) and same(deit['model'], weights)
    assert swin['config'] == dict(MODEL=dict(NAME='swin', DROP=0.2), DATA=[1, 2]) and swin['max_accuracy'] == 81.0
    assert mm['meta']['cfg'].a.b == 1


def test_resuming_goes_on_without_trust(run, tmp_path):
    options = [*run.options, 'train_cfg.max_epochs=2']
    train([str(run.config), '--work-dir', str(tmp_path), '--resume', str(run.checkpoint), '--cfg-options', *options])
    found = load(str(tmp_path / 'epoch_2.pth'))
    assert found['meta']['epoch'] == 2
    # The logs of the first epoch are in it.
    before = load(str(run.checkpoint))['message_hub']['log_scalars']['train/loss'].data[0]
    after = found['message_hub']['log_scalars']['train/loss'].data[0]
    assert len(after) > len(before) and np.array_equal(after[: len(before)], before)


# ------------------------------------------------------------------------------------------------------- safetensors
@pytest.fixture
def safe(run, tmp_path):
    path = tmp_path / 'weights.safetensors'
    save_safetensors(load(str(run.checkpoint)), path)
    return path


def test_safetensors_are_what_was_written(run, safe, tmp_path):
    whole, found = load(str(run.checkpoint)), load(str(safe))
    assert same(dict(sorted(whole['state_dict'].items())), dict(sorted(found['state_dict'].items())))
    assert found['meta']['dataset_meta']['classes'] == list(whole['meta']['dataset_meta']['classes'])
    image = np.full((32, 32, 3), 90, np.uint8)
    one, two = (inference_model(run.config, path, image) for path in (run.checkpoint, safe))
    assert one['pred_class'] == two['pred_class'] and np.array_equal(one['pred_scores'], two['pred_scores'])
    shared = torch.arange(6.0).reshape(2, 3)
    save_safetensors(dict(state_dict=dict(one=shared, two=shared, turned=shared.T)), tmp_path / 'shared.safetensors')
    found = load(str(tmp_path / 'shared.safetensors'))
    assert found['meta'] == {} and torch.equal(found['state_dict']['turned'], shared.T)


def test_safetensors_in_the_commands(run, safe, web, tmp_path, capsys):
    shutil.copy(safe, web.folder / 'weights.safetensors')
    for name, source in (('test', safe), ('init_cfg', web.url('weights.safetensors'))):
        main, *args = commands(run, source, tmp_path)[name]
        main([str(arg) for arg in args])
    assert len([line for line in capsys.readouterr().out.splitlines() if 'accuracy/top1' in line]) == 2


def test_converter_writes_and_reads_safetensors(tmp_path):
    arch = dict(embed_dims=8, depths=(2, 2, 6, 2), num_heads=(1, 1, 2, 2))
    theirs = classification_file(STViTSwin(arch, semantic_size=None).state_dict())
    classes = dict(classes=('one', 'two'), palette=[(1, 2, 3)])
    torch.save(dict(theirs, meta=dict(dataset_meta=classes)), tmp_path / 'theirs.pth')
    save_safetensors(dict(state_dict=theirs['model']), tmp_path / 'theirs.safetensors')
    for source, target in (
        ('theirs.pth', 'ours.pth'),
        ('theirs.pth', 'ours.safetensors'),
        ('theirs.safetensors', 'again.pth'),
    ):
        convert([str(tmp_path / source), str(tmp_path / target)])
    first, second, third = (load(str(tmp_path / f'{name}')) for name in ('ours.pth', 'ours.safetensors', 'again.pth'))
    assert len(first['state_dict']) > 50 and any(name.startswith('backbone.stages') for name in first['state_dict'])
    for other in (second, third):
        assert same(dict(sorted(first['state_dict'].items())), dict(sorted(other['state_dict'].items())))
    for named in (first, second):  # in types that any program reads
        assert named['meta']['dataset_meta'] == dict(classes=['one', 'two'], palette=[[1, 2, 3]])
    assert third['meta'] == {}


@pytest.mark.parametrize('content', ['empty', 'text', 'cut', 'huge header', 'wrong offsets', 'no JSON in it'])
def test_broken_safetensors(safe, fails, run, tmp_path, content):
    whole = safe.read_bytes()
    length = 8 + int.from_bytes(whole[:8], 'little')

    def changed(old, new):
        return whole[:length].replace(old, new) + whole[length:]

    broken = {
        'empty': b'',
        'text': b'<html>not here</html>',
        'cut': whole[: len(whole) // 2],
        'huge header': (1 << 62).to_bytes(8, 'little') + whole[8:],
        'wrong offsets': changed(b'"data_offsets":[0,', b'"data_offsets":[7,'),
        'no JSON in it': changed(b'\\"classes\\"', b'\\"classes]]'),
    }[content]
    assert broken != whole
    safe.write_bytes(broken)
    main, *args = commands(run, safe, tmp_path)['test']
    assert f'{safe}: it is no safetensors file or incomplete' in fails(main, *args)
    with pytest.raises(CheckpointError, match='weights.safetensors'):
        get_model(run.config, safe)


# --------------------------------------------------------------------------------------------------------- downloads
@pytest.fixture
def cut_web():
    """A web server that says a length and sends half of it; with ``chunked`` in the name it says none."""
    content = os.urandom(5000)

    class Cut(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self):
            self.send_response(200)
            self.close_connection = True
            if 'chunked' in self.path:
                self.send_header('Transfer-Encoding', 'chunked')
                self.end_headers()
                self.wfile.write(b'%x\r\n' % len(content) + content[:2000])
            else:
                self.send_header('Content-Length', str(len(content)))
                self.end_headers()
                self.wfile.write(content[:2000])

        def log_message(self, *args):
            pass

    with serving(Cut) as address:
        yield address


def kept(caches):
    return sorted(path.name for path in (caches / 'torch/hub/checkpoints').rglob('*') if path.is_file())


@pytest.mark.parametrize('name', ['model.pth', 'chunked.pth', 'model-0123456789ab.pth'])
def test_download_that_is_cut_off(run, cut_web, fails, caches, tmp_path, name):
    before = kept(caches)
    main, *args = commands(run, f'{cut_web}/{name}', tmp_path)['test']
    line = fails(main, *args)
    assert f'/{name}: the download was cut off' in line and 'it was removed' in line and cut_web in line
    assert 'chunked' in name or '2000 of 5000 bytes' in line
    assert kept(caches) == before


def test_download_is_held_to_the_hash_in_its_name(run, web, fails, caches, tmp_path):
    content = run.checkpoint.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    for name in (
        f'tiny-{digest[:8]}.pth',
        f'tiny_20240101-{digest[:12]}.pth',
        f'tiny-{digest}.pth',
        'tiny-20240131.pth',
    ):
        (web.folder / name).write_bytes(content)
        assert 'state_dict' in CheckpointLoader.load_checkpoint(web.url(name))
        assert name in kept(caches)
    name = f'other-{digest[:8]}.pth'
    (web.folder / name).write_bytes(content + b' ')
    main, *args = commands(run, web.url(name), tmp_path)['test']
    for _ in range(2):  # it is not taken from the cache either
        line = fails(main, *args)
        assert f'{name}: its SHA-256 begins with ' in line and digest[:8] in line and web.url(name) in line
        assert name not in kept(caches)


def test_kept_download_that_was_changed(run, web, caches):
    content = run.checkpoint.read_bytes()
    name = f'changed-{hashlib.sha256(content).hexdigest()[:8]}.pth'
    (web.folder / name).write_bytes(content)
    CheckpointLoader.load_checkpoint(web.url(name))
    (caches / 'torch/hub/checkpoints' / name).write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=f'{name}: its SHA-256 begins with .* the download .* was removed'):
        CheckpointLoader.load_checkpoint(web.url(name))
    assert 'state_dict' in CheckpointLoader.load_checkpoint(web.url(name))  # downloaded anew


def test_downloads_of_one_name(web, caches):
    """Two addresses that end alike are two files, which are kept and read without the server too."""
    for number in (1, 2):
        (web.folder / f'run{number}').mkdir()
        torch.save(dict(number=number), web.folder / f'run{number}' / 'best.pth')
    for _ in range(2):
        for number in (1, 2):
            assert CheckpointLoader.load_checkpoint(web.url(f'run{number}/best.pth')) == dict(number=number)
            (web.folder / f'run{number}' / 'best.pth').unlink(missing_ok=True)
    assert kept(caches).count('best.pth') == 2


def test_page_in_the_place_of_a_file_is_removed(run, web, fails, caches, tmp_path):
    (web.folder / 'page.pth').write_text('<html>please log in</html>')
    main, *args = commands(run, web.url('page.pth'), tmp_path)['test']
    line = fails(main, *args)
    assert 'torch.save has not written it' in line and f'the download from {web.url("page.pth")} was removed' in line
    assert 'page.pth' not in kept(caches)


def test_address_without_a_file(run, web, fails, tmp_path):
    for address in (web.url(''), web.url('..')):
        main, *args = commands(run, address, tmp_path)['test']
        assert 'the address names no file' in fails(main, *args)
