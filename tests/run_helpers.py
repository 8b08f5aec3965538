"""Configs of small runs in the toolboxes, and how the tests start a command and read its log."""

import contextlib
import http.server
import json
import multiprocessing
import os
import re
import runpy
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import torch
from mmengine.utils import ManagerMixin

ROOT = Path(__file__).resolve().parents[1]

CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts and path.parent != ROOT / 'configs'
)
DETECTORS = [config for config in CONFIGS if 'rcnn' in config or config.endswith('_coco.py')]
RECOGNISERS = [config for config in CONFIGS if 'swin3d' in config]
SEGMENTORS = [config for config in CONFIGS if 'upernet' in config or 'segmenter' in config]
CLASSIFIERS = [config for config in CONFIGS if config not in DETECTORS + RECOGNISERS + SEGMENTORS]


def is_larger(config):
    """Whether there is a config of the same network that differs from it in sizes alone, and is smaller."""
    sizes = ((r'-[sb](?=[-_])', '-t'), (r'-b(?=[-_])', '-s'), (r'-1[02]_', '-7_'), (r'-(19|24)_', '-14_'))
    sizes += ((r'-(wide|resnext)(?=_)', ''), ('-384px', ''))
    smaller = [re.sub(pattern, size, config) for pattern, size in sizes]
    return any(name != config and name in CONFIGS for name in smaller)


TINY = """
_base_ = ['mmstvit::digits/stvit-tiny_digits.py']
model = dict(
    backbone=dict(
        arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64), patch_size=8, stgm_layer=1,
        semantic_grid=(2, 2)),
    head=dict(in_channels=32))
train_dataloader = dict(batch_size=20, dataset=dict(indices=600))
val_dataloader = dict(batch_size=50, dataset=dict(indices=150))
test_dataloader = dict(batch_size=50, dataset=dict(indices=150))
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
train_cfg = dict(max_epochs=4)
default_hooks = dict(logger=dict(interval=10))
"""

# The same with the layers of the STGM alone, which takes half as long to export.
SHALLOW = TINY.replace('num_layers=4', 'num_layers=2').replace('stgm_layer=1', 'stgm_layer=0')

# The same without semantic tokens.
DENSE = TINY.replace('stgm_layer=1,', 'stgm_layer=4,').replace('semantic_grid=(2, 2)', 'semantic_grid=None')

DETECTION = """
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', 'mmdet::_base_/default_runtime.py']
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.STViT',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=96,
        patch_size=8,
        semantic_grid=None,
        out_type='featmap'),
    neck=dict(_delete_=True, type='FPN', in_channels=[32], out_channels=16, add_extra_convs='on_output', num_outs=5),
    bbox_head=dict(num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1),
    test_cfg=dict(score_thr=0.0))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
]
meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='RepeatDataset', times=16, dataset=dict(
        type='CocoDataset',
        metainfo=dict(classes=('square', 'disc')),
        data_root='{root}',
        ann_file='scenes.json',
        data_prefix=dict(img='images/'),
        pipeline=[*pipeline, dict(type='PackDetInputs')])))
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        metainfo=dict(classes=('square', 'disc')),
        data_root='{root}',
        ann_file='scenes.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=[*pipeline, dict(type='PackDetInputs', meta_keys=meta)]))
test_evaluator = dict(type='CocoMetric', ann_file='{root}/scenes.json', metric='bbox')
val_dataloader, val_evaluator = test_dataloader, test_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg, test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
auto_scale_lr = dict(enable=False, base_batch_size=8)
"""

VIDEO = """
_base_ = ['mmaction::_base_/default_runtime.py']
model = dict(
    type='Recognizer2D',
    backbone=dict(type='ResNet', depth=18, pretrained=None, norm_eval=False),
    cls_head=dict(
        type='TSNHead', num_classes=2, in_channels=512, average_clips='prob',
        consensus=dict(type='AvgConsensus', dim=1)),
    data_preprocessor=dict(
        type='ActionDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, format_shape='NCHW'))
pipeline = [
    dict(type='OpenCVInit'),
    dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=2, test_mode=True),
    dict(type='OpenCVDecode'),
    dict(type='Resize', scale=(32, 32), keep_ratio=False),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs'),
]
dataset = dict(
    type='VideoDataset', ann_file='{root}/clips.txt', data_prefix=dict(video='{root}/clips'), pipeline=pipeline)
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dataset)
test_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(test_mode=True, **dataset))
val_dataloader = test_dataloader
val_evaluator = test_evaluator = dict(type='AccMetric')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_begin=1, val_interval=1)
val_cfg, test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
# As in the Kinetics configs of mmaction2: without a GPU the commands replace it.
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='SGD', lr=0.01))
auto_scale_lr = dict(enable=False, base_batch_size=8)
"""

# On scenes of digits of 64 px.
SEGMENTATION = """
_base_ = ['mmstvit::digits/upernet_stvit-r_digits.py']
norm = dict(type='GN', num_groups=4)  # 1 x 1 tokens are pooled of single images
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(arch=dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 2, 4, 8))),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=16, norm_cfg=dict(_delete_=True, **norm)),
    auxiliary_head=dict(in_channels=64, channels=8, norm_cfg=dict(_delete_=True, **norm)))
steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
scenes = dict(data_root='{root}', pipeline=steps)
train_dataloader = dict(batch_size=4, dataset=scenes)
val_dataloader = dict(batch_size=2, dataset=scenes)
test_dataloader = val_dataloader
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
train_cfg = dict(max_epochs=1, val_interval=1)
"""

COLOURS = dict(cat=(200, 30, 30), dog=(30, 200, 30), emu=(30, 30, 200))
FOLDERS = """
_base_ = ['mmstvit::digits/stvit-tiny_digits.py']
model = dict(
    backbone=dict(
        arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64), patch_size=8, stgm_layer=1,
        semantic_grid=(2, 2)),
    head=dict(in_channels=32, num_classes=3))
data_preprocessor = dict(num_classes=3)
steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
own = dict(_delete_=True, type='CustomDataset', data_root='{root}/set', pipeline=steps)
train_dataloader = dict(batch_size=4, dataset=dict(own, data_prefix='train'))
val_dataloader = dict(batch_size=4, dataset=dict(own, data_prefix='val'))
test_dataloader = val_dataloader
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
train_cfg = dict(max_epochs=6, val_interval=6)
default_hooks = dict(logger=dict(interval=1))
"""


def write_folders(root):
    """A set of pictures of three colours in folders, for the config ``FOLDERS``."""
    for number, split in enumerate(('train', 'val')):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                noise = np.random.default_rng(100 * number + i).normal(0, 25, (32, 32, 3))
                cv2.imwrite(str(folder / f'{i}.png'), np.clip(noise + colour, 0, 255).astype(np.uint8))


def saved(folder, text, classes, weights='weights.pth'):
    """A config of this text and weights for it, random ones."""
    from mmstvit import get_model

    config, weights = folder / 'config.py', folder / weights
    config.write_text(text)
    torch.manual_seed(0)
    model = get_model(config)
    meta = dict(dataset_meta=dict(classes=classes))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), weights)
    return str(config), str(weights)


class Call:
    """Pickles to a call."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def tool_command(tool, *args):
    return [sys.executable, str(ROOT / 'tools' / tool), *map(str, args)]


def tool_env(**extra):
    # These networks are too small for a second thread, and threads that wait would take the cores from other processes.
    return {**os.environ, 'OMP_NUM_THREADS': '1', **extra}


def run_script(script, *args, folder, path=None, **env):
    """Run one of the scripts that start several processes from a folder, with another one before the ``PATH``."""
    env = tool_env(**{'PYTHON': sys.executable, **env})
    if path:
        env['PATH'] = f'{path}{os.pathsep}{env["PATH"]}'
    command = ['bash', str(ROOT / 'tools' / script), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)


def start_process(function, *args, output):
    """Start a process that calls a function of a module, with its output in a file.

    It is a fork of one that has imported mmpretrain and nothing else: starting Python and importing it would take
    most of the time, and a process that has computed gradients in several threads cannot be forked.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmstvit.cli.train', 'mmpretrain.models'])
    process = context.Process(target=_call, args=(function, args, output))
    process.start()
    return process


def _call(function, args, output):
    with open(output, 'a') as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    torch.set_num_threads(1)
    with quick_runs():
        function(*args)


def run_ranks(main, *args, output, number=2):
    """Run a command's ``main`` in several processes, as torchrun starts them; return what all of them print."""
    shared = dict(WORLD_SIZE=str(number), MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
    words = [*map(str, args), '--launcher', 'pytorch']
    processes = [
        start_process(_run_rank, main, words, dict(shared, RANK=str(i), LOCAL_RANK=str(i)), output=output)
        for i in range(number)
    ]
    for process in processes:
        process.join()
    said = Path(output).read_text()
    codes = [process.exitcode for process in processes]
    assert codes == [0] * number, f'exit codes {codes}: {said[-3000:]}'
    return said


def _run_rank(main, words, environ):
    os.environ.update(environ)
    main(words)


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


@contextlib.contextmanager
def serving(handler):
    """A web server on loopback; yields its address."""
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def read_scalars(work_dir):
    """What the newest run in a work dir logged, one dict for each line."""
    newest = max(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in newest.read_text().splitlines()]


def managers(cls=ManagerMixin):
    """The classes whose instances mmengine keeps by name, and hands out again to a run of the same second."""
    for sub in cls.__subclasses__():
        yield sub
        yield from managers(sub)


@contextlib.contextmanager
def one_run():
    """A run in this process leaves mmengine's loggers, visualizers, default scope and environment as they were.

    It has one thread: these networks are too small for a second one, and threads that wait for each other can spin for
    seconds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    before = {manager: dict(manager._instance_dict) for manager in managers()}
    environ = dict(os.environ)
    yield
    for manager in managers():
        manager._instance_dict.clear()
        manager._instance_dict.update(before.get(manager, {}))
    for name in set(os.environ) - set(environ):
        del os.environ[name]
    os.environ.update(environ)
    torch.set_num_threads(threads)


@contextlib.contextmanager
def quick_runs():
    """What takes a run longer than its training here is left out.

    Compilers are not asked for their versions, the text of a config is not laid out for each checkpoint, and data sets
    do not look through all modules for garbage.
    """
    with (
        mock.patch('mmengine.runner.runner.collect_env', dict),
        mock.patch('yapf.yapflib.yapf_api.FormatCode', lambda text, **kwargs: (text, True)),
        mock.patch('mmengine.dataset.base_dataset.gc', SimpleNamespace(collect=int)),
    ):
        yield


def says(line, *words):
    """Whether a message has these names, numbers and words, in this order."""
    return re.search('.*'.join(map(re.escape, words)), line, re.DOTALL) is not None


def run_here(monkeypatch, tool, *args):
    """Run a script of ``tools/`` in this process, with the working folder and the patches that a test has made."""
    monkeypatch.setattr(sys, 'argv', [Path(tool).name, *args])
    runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
