"""Every config: its model, one real training step, its data, and what its metafile says of it."""

import copy
import functools
import re
from argparse import Namespace
from pathlib import Path

import cv2
import mmengine
import numpy as np
import pytest
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from run_helpers import CLASSIFIERS, CONFIGS, DETECTORS, ROOT, SEGMENTORS, is_larger

from mmstvit import get_model
from mmstvit.apis.models import TOOLBOXES
from mmstvit.cli.common import load_config
from mmstvit.measure.complexity import count

# Learned tables and tokens: weight decay would pull them to zero.
NO_DECAY = ('cls_token', 'pos_embed', 'global_centers', 'relative_position_bias_table')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A working folder in which the data sets that cannot be shipped have one picture a class."""
    folder = tmp_path_factory.mktemp('data')
    picture = folder / 'picture.JPEG'
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 255, (260, 300, 3), dtype=np.uint8))
    for split in ('train', 'val'):
        for i in range(1000):
            place = folder / 'data' / 'imagenet' / split / f'n{i:08d}'
            place.mkdir(parents=True)
            (place / 'picture.JPEG').symlink_to(picture)
    small = {'cifar10': ('train', 'test'), 'clothing': ('train', 'validation', 'test')}
    for name, split in ((name, split) for name, splits in small.items() for split in splits):
        for i in range(10):
            place = folder / 'data' / name / split / str(i)
            place.mkdir(parents=True)
            (place / 'picture.jpg').symlink_to(picture)
    return folder


@functools.cache
def metafile_entries():
    entries = {}
    for metafile in mmengine.load(ROOT / 'model-index.yml')['Import']:
        for entry in mmengine.load(ROOT / metafile)['Models']:
            entries[entry['Config']] = {**entry, 'metafile': metafile}
    return entries


@functools.cache
def _config_of(config):
    return Config.fromfile(ROOT / config)


def config_of(config):
    """The config of a file, which is read once."""
    return copy.deepcopy(_config_of(config))


def read(config, work_dir, **options):
    """The config as tools/train.py reads it."""
    path = str(ROOT / config)
    return load_config(
        Namespace(config=path, work_dir=str(work_dir), cfg_options=options, launcher='none', local_rank=0)
    )


def built(config):
    """A model on the meta device, where nothing is computed; mmseg's ViT reads numbers when it is built."""
    device = 'cpu' if 'segmenter' in config else 'meta'
    with torch.device(device):
        return get_model(config_of(config), device=device)


def test_there_are_configs_and_each_is_listed():
    assert 'configs/stvit/stvit-s_8xb128_in1k.py' in CONFIGS and 'configs/digits/stvit-tiny_digits.py' in CONFIGS
    entries = metafile_entries()
    assert set(entries) == set(CONFIGS)
    for config, entry in entries.items():
        assert entry['Name'] == Path(config).stem
        assert Path(entry['metafile']).parent == Path(config).parent


@pytest.mark.parametrize('toolbox, configs', [('mmdet', DETECTORS), ('mmseg', SEGMENTORS)])
def test_parameters_of_dense_networks_as_the_metafile_says(toolbox, configs):
    pytest.importorskip(toolbox)
    for config in configs:
        model = built(config)
        said = metafile_entries()[config]['Metadata']['Parameters']
        assert sum(parameter.numel() for parameter in model.parameters()) == said, config


@pytest.mark.parametrize('config', [config for config in SEGMENTORS if '-swin-' not in config or '-t_' in config])
def test_segmentors(config):
    """Decay of the parameters, numbers of classes and what is not labelled, of the networks of one size."""
    pytest.importorskip('mmseg')
    cfg, model = config_of(config), built(config)
    with DefaultScope.overwrite_default_scope('mmseg'):
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decay = {id(p): group['weight_decay'] for group in optimizer.param_groups for p in group['params']}
    free = {name for name in undecayed(model) if not name.endswith('bias')}
    assert free and not any(decay[id(p)] for name, p in model.named_parameters() if name in free)
    assert any(decay.values()) or 'segmenter' in config and 'ade20k' in config  # mmseg's own recipe has no decay
    classes = model.dataset_meta['classes']
    ignored = {evaluator.get('ignore_index', 255) for evaluator in (cfg.val_evaluator, cfg.test_evaluator)}
    for head in (model.decode_head, *([model.auxiliary_head] if model.with_auxiliary_head else [])):
        assert head.num_classes == len(classes) and {head.ignore_index} == ignored
    assert ignored == {cfg.model.data_preprocessor.get('seg_pad_val', 255)}


@pytest.mark.parametrize('name', ['digits/upernet_{}_digits', 'camvid/upernet_{}_1xb8-80e_camvid-360x480'])
def test_segmentors_and_their_baselines_differ_in_the_tokens_alone(name):
    one, other = (config_of(f'configs/{name.format(kind)}.py').to_dict() for kind in ('stvit-r', 'swin'))
    differing = dict(type='mmstvit.STViTR', stem='patch', layer_scale_init_value=0.1, dense=True)
    assert one['model']['backbone'].pop('semantic_size') and other['model']['backbone'].pop('semantic_size') is None
    assert {key: one['model']['backbone'].pop(key) for key in differing} == differing
    assert other['model']['backbone'].pop('type') == 'mmstvit.STViTSwin'
    assert one == other


def test_metafiles_name_existing_files():
    for path in mmengine.load(ROOT / 'model-index.yml')['Import']:
        metafile = mmengine.load(ROOT / path)
        collections = {collection['Name'] for collection in metafile['Collections']}
        for collection in metafile['Collections']:
            for file in (collection['README'], collection.get('Code', {}).get('URL', 'setup.py')):
                assert (ROOT / file).is_file(), file
        assert {entry['In Collection'] for entry in metafile['Models']} <= collections


def image_size(cfg) -> int:
    """The side of the square images that the test pipeline gives."""
    steps = cfg.test_dataloader.dataset.pipeline
    return [size for step in steps if (size := step.get('crop_size') or step.get('scale'))][-1]


@pytest.mark.parametrize(
    'config', [pytest.param(config, marks=pytest.mark.long) if is_larger(config) else config for config in CLASSIFIERS]
)
def test_size_as_the_metafile_says(config):
    """Parameters exactly, multiply-adds at the config's image size within 1 %."""
    said = metafile_entries()[config]['Metadata']
    model = built(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == said['Parameters']
    side = image_size(config_of(config))
    counted = count(model, torch.empty(1, 3, side, side, device='meta'), mode='tensor')
    assert counted.multiply_adds == pytest.approx(said['FLOPs'], rel=0.01)


@pytest.mark.parametrize('config', CONFIGS)
def test_name_agrees_with_the_recipe(config):
    """``8xb128``: processes and batch of each, ``30e``: epochs."""
    cfg = config_of(config)
    assert cfg.default_scope in TOOLBOXES
    batch = re.search(r'_(\d+)xb(\d+)', config)
    if batch:
        assert cfg.train_dataloader.batch_size == int(batch[2])
        assert cfg.auto_scale_lr.base_batch_size == int(batch[1]) * int(batch[2])
    said = [int(epochs) for epochs in re.findall(r'-(\d+)e', config)]
    said += [12 * int(times) for times in re.findall(r'[_-](\d)x_coco', config)]
    said += [310 if 't2t-vit' in config else 300] if 'in1k' in config else []
    assert not said or cfg.train_cfg.max_epochs == said[0]


def undecayed(model):
    """Names of the parameters that must be free of weight decay: norms, biases, tables and tokens."""
    norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    names = {
        f'{prefix}.{name}'
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if isinstance(module, norms) or name == 'bias' or name in NO_DECAY
    }
    tables = ('pos_embed', 'cls_token', 'relative_position_bias_table')
    assert any('norm' in name or '.ln1' in name for name in names) and any(name.endswith(tables) for name in names)
    return names


def random_teacher(cfg, path):
    """A checkpoint of the dense network: no weights can be downloaded here."""
    state = get_model(cfg).state_dict()
    torch.save({'state_dict': {name: value for name, value in state.items() if 'steps.' not in name}, 'meta': {}}, path)
    return str(path)


# One at full size for each backbone and recipe; what the other forms of it are built of is trained in tests of models.
DOSE = (
    'vit-tiny_cifar10',
    'stvit-tiny_cifar10',
    't2t-vit_cifar10',
    'stvit-r_cifar10',
    'stvit-t_8xb128_in1k',
    'stvit-t-ft_8xb128-30e_in1k',
    'stvit-swin-t_16xb64_in1k',
    'stvit-r-swin-t_8xb128_in1k',
    't2t-vit-7_8xb64_in1k',
)


# Of one size of each network: the others differ in widths and depths alone.
@pytest.mark.parametrize(
    'config',
    [
        config if 'digits' in config or Path(config).stem in DOSE else pytest.param(config, marks=pytest.mark.long)
        for config in CLASSIFIERS
        if not is_larger(config)
    ],
)
def test_training_step(config, data, tmp_path, monkeypatch):
    """The config's own data, augmentation, loss and optimizer: each parameter gets a gradient and moves."""
    monkeypatch.chdir(data)
    small = {'batch_size': 2, 'num_workers': 0, 'persistent_workers': False}
    options = {f'{split}_dataloader.{key}': small[key] for split in ('train', 'val') for key in small}
    cfg = read(config, tmp_path, **options)
    if 'teacher_ckpt' in cfg.model:
        cfg.model.teacher_ckpt = random_teacher(cfg, tmp_path / 'teacher.pth')
    runner = Runner.from_cfg(cfg)
    loop = runner.build_train_loop(runner._train_loop)
    runner._train_loop = loop
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.build_param_scheduler(runner.param_schedulers)

    optimizer, model = runner.optim_wrapper.optimizer, runner.model.train()
    decay = {id(p): group['weight_decay'] for group in optimizer.param_groups for p in group['params']}
    # The schedule of CIFAR-10 has one group, so that a GPU need not wait for the optimizer.
    free = () if '_cifar10' in config else undecayed(model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # the optimizer has none that are frozen
            continue
        expected = 0 if free and (name in free or parameter.dim() < 2) else cfg.optim_wrapper.optimizer.weight_decay
        assert decay[id(parameter)] == expected, name

    for module in model.modules():
        if type(module).__name__ == 'DropPath':
            module.eval()  # with two images it happens that a branch is dropped for both
    for group in optimizer.param_groups:
        # At the start of the warm-up, or behind a LayerScale of 1e-5, a step can be lost in rounding.
        group['lr'], group['eps'] = 1e-3, 1e-20
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    batch = model.data_preprocessor(next(iter(loop.dataloader)), training=True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    assert torch.isfinite(loss)
    runner.optim_wrapper.backward(loss)
    without = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []
    runner.optim_wrapper.step()
    assert [name for name, p in model.named_parameters() if p.requires_grad and torch.equal(p, before[name])] == []

    validated = runner.build_val_loop(runner._val_loop)
    with torch.no_grad():
        samples = model.eval().val_step(next(iter(validated.dataloader)))
    validated.evaluator.process(data_samples=samples, data_batch=None)
    metrics = validated.evaluator.evaluate(len(samples))
    assert 0 <= metrics['accuracy/top1'] <= 100
    assert isinstance(validated.dataloader.dataset, BaseDataset)


@pytest.mark.parametrize('config', CLASSIFIERS)
def test_inference_pipeline_is_the_one_of_the_test(config):
    """Testing and validation read the same data in the same way, without augmentation."""
    cfg = config_of(config)
    if '_clothing' in config:  # has a split for the test
        folders = [cfg[f'{split}_dataloader'].dataset.pop('data_prefix') for split in ('val', 'test')]
        assert folders == ['validation', 'test']
    assert cfg.test_dataloader.dataset == cfg.val_dataloader.dataset
    kinds = [str(step['type']) for step in cfg.test_dataloader.dataset.pipeline]
    assert not any('Random' in kind or 'Erasing' in kind for kind in kinds)
    assert any('Rand' in str(step['type']) for step in cfg.train_dataloader.dataset.pipeline)


def test_images_that_are_kept_in_memory_are_the_same_each_time():
    """Chance belongs behind the cache."""
    for cfg in map(config_of, (config for config in CLASSIFIERS if '_cifar10' in config or '-32px' in config)):
        steps = [str(step['type']) for step in cfg.train_dataloader.dataset.dataset.pipeline]
        assert steps and not any('Rand' in step for step in steps)


def test_fine_tuning_starts_from_deit():
    """At a URL of mmpretrain's DeiT of the same size, with its class token and its head."""
    for size, name in (('t', 'tiny'), ('s', 'small'), ('b', 'base')):
        cfg = config_of(f'configs/stvit/stvit-{size}-ft_8xb128-30e_in1k.py')
        assert cfg.model.backbone.arch == name and cfg.model.backbone.out_type == 'cls_token'
        assert cfg.model.init_cfg.type == 'Pretrained' and f'/deit-{name}_pt-' in cfg.model.init_cfg.checkpoint
        scratch = config_of(f'configs/stvit/stvit-{size}_8xb128_in1k.py')
        assert cfg.optim_wrapper.optimizer.lr < scratch.optim_wrapper.optimizer.lr
        assert 'init_cfg' not in scratch.model


@pytest.mark.parametrize(
    'name,baseline,differing',
    [
        ('stvit-tiny_digits', 'vit-tiny_digits', ('semantic_grid', 'stgm_layer')),
        ('stvit-t2t_digits', 't2t-vit_digits', ('semantic_grid', 'stgm_layer')),
        ('stvit-swin_digits', 'swin_digits', ('semantic_size',)),
        ('stvit-r_digits', 'swin_digits', ('semantic_size', 'type', 'stem', 'layer_scale_init_value')),
        ('stvit-tiny_cifar10', 'vit-tiny_cifar10', ('semantic_grid', 'stgm_layer')),
        ('stvit-t2t_cifar10', 't2t-vit_cifar10', ('semantic_grid', 'stgm_layer')),
        ('t2t-vit_cifar10', 'vit-patch_cifar10', ('t2t_type', 'type', 'token_dims', 'semantic_grid')),
        ('stvit-swin_cifar10', 'swin_cifar10', ('semantic_size',)),
        ('stvit-r_cifar10', 'swin_cifar10', ('semantic_size', 'type', 'stem', 'layer_scale_init_value')),
        ('stvit-t_cifar10', 'deit-t_cifar10', ('semantic_grid',)),
        ('stvit-s_cifar10', 'deit-s_cifar10', ('semantic_grid',)),
    ],
)
def test_dense_baseline_differs_in_the_tokens_alone(name, baseline, differing):
    """So that a comparison of the two is one of the method."""
    one, other = (config_of(f'configs/{n.rpartition("_")[2]}/{n}.py').to_dict() for n in (name, baseline))
    assert other['model']['backbone'].get(differing[0]) is None and one['model']['backbone'][differing[0]]
    for cfg in (one, other):
        for option in differing:
            cfg['model']['backbone'].pop(option, None)
    assert one == other


@pytest.mark.parametrize('size,drop_path', [('s', 0.3), ('b', 0.4)])
def test_published_options_of_stvit_r(size, drop_path):
    ours, theirs = (config_of(f'configs/stvit_r/stvit-r-swin-{size}_8xb128_in1k{end}.py') for end in ('', '_published'))
    assert theirs.model.backbone.pop('shortcut') is False and theirs.model.backbone.pop('use_global') is False
    assert ours.model.backbone.pop('use_global') is True
    assert ours.to_dict() == theirs.to_dict()
    assert ours.model.backbone.drop_path_rate == drop_path and ours.optim_wrapper.clip_grad.max_norm == 5.0
    assert ours.optim_wrapper.optimizer.lr == pytest.approx(1e-3) and ours.param_scheduler[0].end == 20
