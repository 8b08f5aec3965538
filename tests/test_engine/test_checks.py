"""What would fail in a run, or be done in vain, is said before its first iteration; what can be mended is mended."""

import copy
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from run_helpers import FOLDERS, one_run, read_scalars, says, write_folders
from torch import nn

from mmstvit.cli.common import read_config
from mmstvit.cli.test import main as evaluate
from mmstvit.cli.train import main as train
from mmstvit.engine.checks import check_classes, check_schedules
from mmstvit.engine.folders import folders_in
from mmstvit.engine.running import add_hook, build_runner, prepare_cpu
from mmstvit.engine.schedules import fit_schedules
from mmstvit.engine.strategy import choose_strategy
from mmstvit.errors import UsageError, one_line_errors

# Two runs of one second share mmengine's log.
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created')


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """A folder with a set of three colours, a config, and a network that tells them apart."""
    folder = tmp_path_factory.mktemp('folders')
    write_folders(folder / 'set')
    (folder / 'config.py').write_text(FOLDERS.replace('{root}', str(folder)))
    with pytest.MonkeyPatch.context() as patch, one_run():
        patch.chdir(folder)
        train(
            ['config.py', '--work-dir', 'work', '--cfg-options', 'train_cfg.max_epochs=8', 'train_cfg.val_interval=8']
        )
    return folder


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    """A copy of it, to be changed."""
    shutil.copytree(home / 'set', tmp_path / 'set')
    shutil.copy(home / 'work/epoch_8.pth', tmp_path)
    (tmp_path / 'config.py').write_text(FOLDERS.replace('{root}', str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def measured(*options):
    args = [*CHECKPOINT, '--out', 'out.json']
    evaluate([*args, '--cfg-options', *options] if options else args)
    return json.loads(Path('out.json').read_text())['accuracy/top1']


CHECKPOINT = ('config.py', 'epoch_8.pth', '--work-dir', 'test')


# ---------------------------------------------------------------------------------------------- classes of folders
def test_class_that_a_split_lacks_keeps_the_others_numbers(here):
    assert measured() == 100
    shutil.rmtree('set/val/dog')
    assert measured() == 100


def test_class_without_pictures(here):
    for path in Path('set/val/cat').iterdir():
        path.unlink()
    assert measured() == 100


def test_class_that_the_training_set_lacks(here, fails):
    Path('set/val/cat').rename('set/val/zebra')
    for line in (fails(evaluate, *CHECKPOINT), fails(train, 'config.py', '--work-dir', 'w')):
        assert says(line, 'set/val', 'zebra', 'cat, dog, emu')


def test_classes_without_the_training_set(here, fails):
    """The checkpoint and the head know them."""
    shutil.rmtree('set/train')
    assert measured() == 100
    Path('set/val/cat').rename('set/val/zebra')
    line = fails(evaluate, *CHECKPOINT)
    assert 'epoch_8.pth was trained with other classes' in line
    assert says(line, 'checkpoint has cat', 'data has zebra')
    shutil.rmtree('set/val/zebra')
    assert says(fails(evaluate, *CHECKPOINT), 'num_classes=3', '2 classes, dog, emu')
    assert measured('test_dataloader.dataset.metainfo.classes=[cat,dog,emu]') == 100


def test_classes_in_another_order(here, fails):
    option = 'test_dataloader.dataset.metainfo.classes=[emu,dog,cat]'
    line = fails(evaluate, *CHECKPOINT, '--cfg-options', option)
    assert says(line, 'another order', '0 is cat for the checkpoint', 'emu for the data')


def test_resume_with_other_classes(here, fails):
    for split in ('train', 'val'):
        Path('set', split, 'cat').rename(f'set/{split}/fox')
    line = fails(
        train, 'config.py', '--work-dir', 'w', '--resume', 'epoch_8.pth', '--cfg-options', 'train_cfg.max_epochs=9'
    )
    assert says(line, 'checkpoint has cat', 'data has fox')
    # What begins from the weights alone learns the new ones.
    train(['config.py', '--work-dir', 'w', '--cfg-options', 'load_from=epoch_8.pth', 'train_cfg.max_epochs=1'])


@pytest.mark.parametrize('model', ['dict(init_cfg=dict({}))', 'dict(backbone=dict(init_cfg=dict(_delete_=True, {})))'])
def test_checkpoint_of_an_init_cfg_is_not_read_where_another_takes_its_place(here, fails, model):
    model = model.format("type='Pretrained', checkpoint='absent.pth'")
    Path('init.py').write_text(f"_base_ = 'config.py'\nmodel = {model}\ntrain_cfg = dict(max_epochs=9)\n")
    command = ('init.py', '--work-dir', 'w')
    # Without an argument there is nothing to resume, and so no other checkpoint.
    assert 'absent.pth' in fails(train, *command) and 'absent.pth' in fails(train, *command, '--resume')
    for start in (['--resume', 'epoch_8.pth'], ['--cfg-options', 'load_from=epoch_8.pth', 'train_cfg.max_epochs=1']):
        with one_run():
            train([*command, *start])


def test_names_that_are_not_those_of_the_folders(here, fails):
    """They name the folders in their order; as many are needed."""
    names = 'metainfo.classes=[red,green,blue]'
    options = [f'{loader}_dataloader.dataset.{names}' for loader in ('train', 'val')]
    train(['config.py', '--work-dir', 'w', '--cfg-options', *options, 'train_cfg.max_epochs=1'])
    meta = torch.load('w/epoch_1.pth', weights_only=False)['meta']
    assert tuple(meta['dataset_meta']['classes']) == ('red', 'green', 'blue')
    line = fails(train, 'config.py', '--work-dir', 'w', '--cfg-options', options[0].replace(',blue', ''))
    assert says(line, '3 folders, cat, dog, emu', 'metainfo.classes', '2 names, red, green')
    assert 'only train_dataloader.dataset has blue' in fails(
        train, 'config.py', '--work-dir', 'w', '--cfg-options', options[0], options[1].replace(',blue', '')
    )


def test_sets_that_are_joined_share_their_numbers(here):
    shutil.copytree('set', 'more')
    shutil.rmtree('set/train/cat')
    Path('joined.py').write_text(
        "_base_ = ['./config.py']\n"
        "part = dict(type='CustomDataset', data_prefix='train', pipeline={{_base_.steps}})\n"
        "train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=1, dataset=dict(\n"
        "    type='ConcatDataset', datasets=[dict(part, data_root='set'), dict(part, data_root='more')])))\n"
    )
    cfg = Config.fromfile('joined.py')
    cfg.update(work_dir='w', launcher='none')
    prepare_cpu(cfg)
    runner = build_runner(cfg)
    joined = runner.build_dataloader(runner._train_dataloader).dataset
    labels = {}
    for i in range(len(joined)):
        info = joined.get_data_info(i)
        labels.setdefault(Path(info['img_path']).parent.name, set()).add(info['gt_label'])
    assert labels == dict(cat={0}, dog={1}, emu={2})


@pytest.mark.parametrize('name', ['.ipynb_checkpoints', '@eaDir', '__MACOSX'])
def test_hidden_folders_are_no_classes(name, here):
    for place in (Path('set/train', name), Path('set/val/cat', name)):
        place.mkdir()
        shutil.copy('set/train/dog/0.png', place / '0.png')
    shutil.copy('set/val/dog/0.png', 'set/val/cat/._0.png')
    assert folders_in('set/train') == ['cat', 'dog', 'emu']
    assert measured() == 100


def test_files_that_are_not_read_are_counted(here, capfd, fails):
    for i in range(5):
        shutil.copy('set/val/cat/0.png', f'set/val/cat/{i}.WebP')
    Path('set/val/dog/.DS_Store').touch()
    Path('set/val/dog/notes').touch()
    assert measured() == 100
    told = [line for line in capfd.readouterr().out.splitlines() if 'set/val are no ' in line]
    assert len(told) == 1 and '6 of 30 files' in told[0] and told[0].endswith(': *.webp 5, without one 1')
    options = ('--cfg-options', 'test_dataloader.dataset.extensions=[.tif]')
    assert 'there are no files with the endings .tif in its folders' in fails(evaluate, *CHECKPOINT, *options)


# ------------------------------------------------------------------------------------------------ numbers of classes
@pytest.mark.parametrize(
    'option, what',
    [
        ('model.head.num_classes=2', 'model.head.num_classes=2, and the data has 3 classes, cat, dog, emu'),
        ('model.head.num_classes=10', 'set --cfg-options model.head.num_classes=3'),
        ('val_evaluator.topk=[1,5]', "the evaluator's topk asks for the best 5, and the model has 3 classes"),
        ('train_dataloader.dataset.metainfo.classes=red', "is the text 'red'"),
        (
            'train_dataloader.drop_last=True train_dataloader.batch_size=25',
            '24 samples, which are no whole batch of 25',
        ),
        ('train_cfg.max_epochs=0', 'nothing would be trained'),
        ('train_cfg.val_interval=0', 'val_interval must be at least 1'),
        ('default_hooks.checkpoint.save_best=acc', 'is none of the metrics of val_evaluator: accuracy/top1'),
        ('default_hooks.checkpoint.save_best=f1', 'is none of the metrics of val_evaluator: accuracy/top1'),
        ('val_evaluator.topk=(1,2) default_hooks.checkpoint.save_best=[top1]', 'accuracy/top1, accuracy/top2'),
        ('model.backbone.arch.num_heads=0', 'ZeroDivisionError'),
    ],
)
@pytest.mark.parametrize('strategy', [(), ('strategy.type=SingleDeviceStrategy',)])
def test_wrong_training(option, what, strategy, here, fails):
    if 'save_best' in option and strategy:
        pytest.skip('seen before the runner is chosen')
    line = fails(train, 'config.py', '--work-dir', 'w', '--cfg-options', *option.split(), *strategy)
    assert what in line
    assert not list(Path('w').glob('*.pth'))


def test_data_set_without_a_pipeline(here, fails):
    """As `_delete_` leaves it."""
    own = "dict(_delete_=True, type='CustomDataset', data_root='set/val')"
    line = fails(train, changed(f'val_dataloader = dict(dataset={own})'), '--work-dir', 'w')
    assert 'val_dataloader.dataset has no pipeline' in line


def test_mixup_of_other_classes(here, fails):
    Path('mixup.py').write_text(
        "_base_ = ['./config.py']\n"
        "model = dict(data_preprocessor=dict(type='ClsDataPreprocessor', num_classes=5,\n"
        "    batch_augments=dict(augments=[dict(type='Mixup', alpha=0.8)])))\n"
    )
    assert 'data_preprocessor.num_classes=5' in fails(train, 'mixup.py', '--work-dir', 'w')


def test_labels_of_a_list_that_the_head_has_no_class_for(here, fails):
    Path('set/list.txt').write_text('train/cat/0.png 0\ntrain/dog/0.png 3\n')
    options = ('train_dataloader.dataset.ann_file=list.txt', 'train_dataloader.dataset.data_prefix=')
    line = fails(train, 'config.py', '--work-dir', 'w', '--cfg-options', *options)
    assert "set/train/dog/0.png: it has the label 3, and the model's classes end at 2" in line
    assert not list(Path('w').glob('*/vis_data/scalars.json'))


def test_frozen_model(here, fails):
    Path('frozen.py').write_text(
        "_base_ = ['./config.py']\n"
        "custom_imports = dict(imports=['frozen_head'])\n"
        "model = dict(type='FrozenClassifier')\n"
    )
    Path('frozen_head.py').write_text(
        'from mmpretrain.models import ImageClassifier\n'
        'from mmpretrain.registry import MODELS\n'
        '@MODELS.register_module()\n'
        'class FrozenClassifier(ImageClassifier):\n'
        '    def __init__(self, **kwargs):\n'
        '        super().__init__(**kwargs)\n'
        '        self.requires_grad_(False)\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(here)
        assert 'all parameters of the model are frozen' in fails(train, 'frozen.py', '--work-dir', 'w')


@pytest.mark.parametrize(
    'options, what',
    [
        ('model.bbox_head.num_classes=80', 'model.bbox_head.num_classes=80, and the data has 2 classes'),
        ('model.bbox_head.num_classes=1', 'model.bbox_head.num_classes=1, and the data has 2 classes, square, disc'),
        ('default_hooks.checkpoint.save_best=bbox_mAP', 'did you mean coco/bbox_mAP?'),
        ('test_dataloader.dataset.metainfo.classes=[disc,square]', 'number 0 is square for'),
    ],
)
def test_detectors(options, what, detection, fails, tmp_path):
    """A single-stage one."""
    args = ('--work-dir', tmp_path, '--cfg-options', options)
    if options.startswith('test'):
        line = fails(evaluate, detection.config, detection.checkpoint, *args)
        assert what in line and 'train_dataloader.dataset.dataset' in line
    else:
        assert what in fails(train, detection.config, *args)


@pytest.mark.parametrize('part', ['bbox_head', 'mask_head'])
def test_heads_of_a_two_stage_detector(part, detection, fails, tmp_path):
    scenes = json.loads((detection.root / 'scenes.json').read_text())
    for annotation in scenes['annotations']:
        x, y, w, h = annotation['bbox']
        annotation['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    (tmp_path / 'scenes.json').write_text(json.dumps(scenes))
    options = [f'val_evaluator.ann_file={tmp_path}/scenes.json']
    for key in ('train_dataloader.dataset', 'val_dataloader.dataset'):
        options += [f'{key}.data_root={detection.root}', f'{key}.ann_file={tmp_path}/scenes.json']
        options += [f'{key}.data_prefix.img=images/', f'{key}.metainfo.classes=[square,disc]']
    numbers = {'bbox_head': 2, 'mask_head': 2, part: 1}
    options += [f'model.roi_head.{name}.num_classes={n}' for name, n in numbers.items()]
    options += ['model.roi_head.mask_head.class_agnostic=False']
    line = fails(train, 'digits/mask-rcnn_stvit-r_digits.py', '--work-dir', tmp_path, '--cfg-options', *options)
    assert f'model.roi_head.{part}.num_classes=1, and the data has 2 classes' in line


@pytest.mark.parametrize(
    'options, what',
    [
        ('model.decode_head.num_classes=9', 'model.decode_head.num_classes=9, and the data has 11 classes, ground'),
        ('model.auxiliary_head.num_classes=12', 'model.auxiliary_head.num_classes=12, and the data has 11 classes'),
        ('model.decode_head.ignore_index=0', 'and the evaluator has ignore_index=255: give both'),
        ('train_dataloader.dataset.metainfo.palette=[[0,0,0]]', 'metainfo.palette has 1 colours and metainfo.classes'),
        ('train_dataloader.dataset.img_suffix=.jpg', 'no file in it ends in .jpg (img_suffix); it has *.png 8'),
        (
            'train_dataloader.dataset.seg_map_suffix=_map.png',
            '8 of 8 images have no label map (seg_map_suffix=',
        ),
        ('default_hooks.checkpoint.save_best=IoU', 'none of the metrics of val_evaluator: aAcc, mIoU, mAcc'),
    ],
)
def test_segmentors(options, what, segmentation, fails, tmp_path):
    assert what in fails(train, segmentation.config, '--work-dir', tmp_path, '--cfg-options', options)


def test_data_follow_the_root_at_the_top_of_a_config():
    """Those that lie in it, and what their evaluators read there; others stay."""
    pytest.importorskip('mmdet')
    options = {'data_root': 'elsewhere', 'val_dataloader.dataset.data_root': 'third'}
    cfg = read_config('digits/mask-rcnn_swin_digits.py', options)
    roots = [cfg[f'{name}_dataloader'].dataset.data_root for name in ('train', 'val', 'test')]
    assert roots == ['elsewhere', 'third', 'elsewhere']
    assert cfg.test_evaluator.ann_file == 'elsewhere/annotations/instances_val.json'
    assert cfg.val_evaluator.ann_file == 'third/annotations/instances_val.json'


def test_recognisers(video, fails, tmp_path):
    def line(*options):
        return fails(train, video.config, '--work-dir', tmp_path, '--cfg-options', *options)

    names = [f'{loader}_dataloader.dataset.metainfo.classes=[a,b,c]' for loader in ('train', 'val')]
    assert 'model.cls_head.num_classes=2, and the data has 3 classes, a, b, c' in line(*names)
    assert 'acc/top1, acc/top5, acc/mean1' in line('default_hooks.checkpoint.save_best=top1')


# ---------------------------------------------------------------------------------------------------------- schedules
WARM_UP = [
    dict(type='LinearLR', start_factor=0.1, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=5, eta_min=1e-5, convert_to_iter_based=True),
]


def changed(options):
    Path('changed.py').write_text(f"_base_ = ['./config.py']\n{options}\n")
    return 'changed.py'


@pytest.mark.parametrize('epochs', [1, 3])
def test_training_that_ends_in_the_warm_up(epochs, here, fails):
    """What the line says to set works."""
    config = changed(f'param_scheduler = {WARM_UP}\ntrain_cfg = dict(max_epochs={epochs})')
    args = (config, '--work-dir', 'w', '--cfg-options', 'default_hooks.logger.interval=1')
    line = fails(train, *args)
    assert 'param_scheduler.1 (CosineAnnealingLR) begins at epoch 5' in line
    assert f'the training ends at train_cfg.max_epochs={epochs}: ' in line
    said = [word.rstrip(',') for word in line.split() if word.startswith('param_scheduler.') and '=' in word]
    assert len(said) == 2
    train([*args, *said])
    assert max(entry['lr'] for entry in read_scalars(Path('w')) if 'lr' in entry) == pytest.approx(2e-3)
    assert line.endswith('param_scheduler=None')
    train([*args, 'param_scheduler=None'])


COSINE = dict(type='CosineAnnealingLR', begin=5, eta_min=1e-5)


@pytest.mark.parametrize(
    'schedule, epochs, expected',
    [
        (WARM_UP, 1, [dict(end=0.5), dict(begin=0.5)]),
        (WARM_UP, 20, [dict(end=2), dict(begin=2)]),
        (WARM_UP, 80, [dict(end=10), dict(begin=10)]),
        ([WARM_UP[0], COSINE], 1, [dict(end=0.5), None]),
        ([dict(COSINE, begin=0, end=40)], 7, [dict(begin=0, end=7)]),
        ([dict(COSINE, T_max=35)], 20, [dict(begin=2, T_max=18)]),
        (dict(type='MultiStepLR', milestones=[27, 36], end=40), 4, [dict(milestones=[3], end=4)]),
        (dict(type='MultiStepLR', milestones=[27, 36], end=40), 80, [dict(milestones=[54, 72], end=80)]),
        ([dict(type='LinearLR', by_epoch=False, end=1000)], 10, [dict(end=250)]),
        ([dict(type='LinearLR', by_epoch=False, end=1000)], 80, [dict(end=1000)]),
    ],
)
def test_schedules_are_scaled_with_the_epochs(schedule, epochs, expected, capsys):
    before = Config(dict(train_cfg=dict(max_epochs=40), param_scheduler=schedule))
    cfg = copy.deepcopy(before)
    cfg.train_cfg.max_epochs = epochs
    fit_schedules(cfg, before)
    schedule = schedule if isinstance(schedule, list) else [schedule]
    kept = [dict(old, **new) for old, new in zip(schedule, expected, strict=True) if new is not None]
    found = cfg.param_scheduler
    assert (found if isinstance(found, list) else [found]) == kept
    assert capsys.readouterr().out.count('\n') == int(kept != schedule)
    check_schedules(cfg.param_scheduler, epochs, None)


def test_schedules_that_are_set_too_are_left():
    before = Config(dict(train_cfg=dict(max_epochs=40), param_scheduler=WARM_UP))
    cfg = copy.deepcopy(before)
    cfg.merge_from_dict({'train_cfg.max_epochs': 10, 'param_scheduler.0.end': 3, 'param_scheduler.1.begin': 3})
    chosen = copy.deepcopy(cfg.param_scheduler)
    fit_schedules(cfg, before)
    assert cfg.param_scheduler == chosen


def test_trial_of_one_epoch(here):
    config = changed(f'param_scheduler = {WARM_UP}\ntrain_cfg = dict(max_epochs=40)')
    train([config, '--work-dir', 'w', '--cfg-options', 'train_cfg.max_epochs=1'])
    assert max(rates(Path('w'))) == pytest.approx(2e-3) and len(rates(Path('w'))) == 6


def test_schedules_by_iteration():
    late = dict(type='PolyLR', by_epoch=False, begin=100)
    check_schedules([late], 2, 101)
    check_schedules(late, 2, None)
    with pytest.raises(UsageError, match=r'param_scheduler.0 \(PolyLR\) begins at iteration 100, .*max_iters=100: '):
        check_schedules([late], 2, 100)
    with pytest.raises(UsageError, match='begins at epoch 5 and ends at 5: its end must be larger'):
        check_schedules([dict(type='StepLR', begin=5, end=5)], 10, None)


def rates(work_dir):
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime)
    entries = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return [entry['lr'] for entry in entries if 'lr' in entry]


@pytest.mark.parametrize('strategy', [(), ('strategy.type=SingleDeviceStrategy',)])
@pytest.mark.parametrize('by_iteration', [False, True])
def test_resumed_training_follows_a_longer_schedule(strategy, by_iteration, here):
    """As if it had been that long from the beginning."""
    schedule = [WARM_UP[0], dict(WARM_UP[1], begin=1, convert_to_iter_based=by_iteration)]
    schedule[0] = dict(schedule[0], end=1)
    args = [changed(f'param_scheduler = {schedule}'), '--cfg-options', *strategy]
    for work_dir, epochs, resume in (('a', 2, ()), ('b', 4, ('--resume', 'a/epoch_2.pth')), ('c', 4, ())):
        with one_run():  # those of one second would share their log
            train([*args, f'train_cfg.max_epochs={epochs}', '--work-dir', work_dir, *resume])
    whole = rates(Path('c'))[12:]
    assert rates(Path('b')) == pytest.approx(whole) and len(whole) == 12 and len(set(whole)) > 1


LENGTH = ('train_cfg.max_epochs=4', 'train_cfg.val_interval=4', 'default_hooks.checkpoint.max_keep_ckpts=-1')
PLATEAU = dict(type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater', patience=9)
TWO_PHASES = [dict(WARM_UP[0], end=1), dict(WARM_UP[1], begin=1, eta_min=0)]


@pytest.fixture
def goes_on(here):
    """A function that trains two epochs, resumes them with options, and returns the rates and groups of the rest."""

    def train_on(schedule, *options, first=()):
        config = changed(f'param_scheduler = {schedule}')
        if not Path('a').is_dir():
            with one_run():
                train([config, '--work-dir', 'a', '--cfg-options', *LENGTH, *first])
        shutil.rmtree('b', ignore_errors=True)
        with one_run():
            train([config, '--work-dir', 'b', '--resume', 'a/epoch_2.pth', '--cfg-options', *LENGTH, *first, *options])
        return rates(Path('b')), torch.load('b/epoch_4.pth', weights_only=False)

    return train_on


@pytest.mark.parametrize('strategy', [(), ('strategy.type=SingleDeviceStrategy',)])
@pytest.mark.parametrize('schedule', [TWO_PHASES, [PLATEAU], None])
def test_resumed_training_follows_the_optimizer_of_its_config(schedule, strategy, goes_on):
    """Half the learning rate is half of it in each later step, another decay is taken over; the rest stays."""
    whole, same = goes_on(schedule, first=strategy)
    optimizer = torch.load('a/epoch_4.pth', weights_only=False)['optimizer']
    assert same['optimizer']['param_groups'] == optimizer['param_groups']
    lr, betas = 'optim_wrapper.optimizer.lr=1e-3', 'optim_wrapper.optimizer.betas=[0.8,0.999]'
    half, other = goes_on(schedule, lr, betas, 'optim_wrapper.optimizer.weight_decay=0.5', first=strategy)
    assert half == pytest.approx([rate / 2 for rate in whole], rel=1e-5) and len(half) == 12
    for group, before in zip(other['optimizer']['param_groups'], optimizer['param_groups'], strict=True):
        assert list(group['betas']) == [0.8, 0.999] and group['eps'] == before['eps']
        assert group['weight_decay'] == (0.5 if before['weight_decay'] else 0)


def test_resumed_training_that_schedules_betas(goes_on):
    """mmengine schedules the first beta as ``momentum``, which moves it away from what the config says."""
    schedule = [dict(type='LinearMomentum', start_factor=0.5, end=4)]
    whole = goes_on(schedule)[1]['optimizer']['param_groups']
    other = goes_on(schedule, 'optim_wrapper.optimizer.betas=[0.45,0.99]')[1]['optimizer']['param_groups']
    assert whole == torch.load('a/epoch_4.pth', weights_only=False)['optimizer']['param_groups']
    for group, before in zip(other, whole, strict=True):
        assert group['betas'] == (pytest.approx(before['betas'][0] / 2), 0.99)


@pytest.mark.parametrize(
    'option, what',
    [
        ('type=SGD', r'cannot be resumed with another optimizer, SGD and not AdamW: keep optim_wrapper.optimizer.type'),
        ('type=Adam', r'cannot be resumed with another optimizer, Adam and not AdamW'),
        ('amsgrad=True', r'with amsgrad=False .* set optim_wrapper.optimizer.amsgrad=False, or leave --resume out'),
    ],
)
def test_optimizers_that_cannot_go_on(option, what, here, fails):
    """In one line, before anything is trained or written."""
    options = ('train_cfg.max_epochs=9', f'optim_wrapper.optimizer.{option}')
    line = fails(train, 'config.py', '--work-dir', 'w', '--resume', 'epoch_8.pth', '--cfg-options', *options)
    assert re.search(what, line) and 'load_from=epoch_8.pth' in line
    assert not list(Path('w').glob('*.pth'))


@pytest.mark.parametrize('strategy', [(), ('strategy.type=SingleDeviceStrategy',)])
def test_accumulated_batches_count_for_the_learning_rate(strategy, here):
    """The base batch size is 32, the learning rate 2e-3, the batch 4 x 8."""
    options = ('optim_wrapper.accumulative_counts=8', 'train_cfg.max_epochs=1', *strategy)
    train(['config.py', '--work-dir', 'w', '--auto-scale-lr', '--cfg-options', *options])
    assert rates(Path('w')) == [pytest.approx(2e-3)] * 6
    assert Config.fromfile('w/config.py').auto_scale_lr.base_batch_size == 32


def test_average_of_weights_starts_from_the_loaded_model(here):
    """Of a checkpoint with an average, and other classes."""
    hook = "custom_hooks = [dict(type='EMAHook', momentum=0.001)]"
    train([changed(hook), '--work-dir', 'a', '--cfg-options', 'train_cfg.max_epochs=2'])
    for split in ('train', 'val'):
        shutil.rmtree(f'set/{split}/emu')
    options = ('load_from=a/epoch_2.pth', 'model.head.num_classes=2', 'data_preprocessor.num_classes=2')
    train([changed(hook), '--work-dir', 'b', '--cfg-options', *options, 'train_cfg.max_epochs=1'])
    first, second = (torch.load(path, weights_only=False) for path in ('a/epoch_2.pth', 'b/epoch_1.pth'))
    assert second['ema_state_dict']['steps'] == 4
    name = 'backbone.encoder.layers.0.attn.qkv.weight'
    if name not in first['state_dict']:
        name = next(name for name in first['state_dict'] if 'qkv' in name)
    begun, other = first['state_dict'][name], first['ema_state_dict']['module.' + name]  # the average is exchanged
    moved = (second['state_dict'][name] - begun).abs().max()
    assert moved < (second['state_dict'][name] - other).abs().max()


# -------------------------------------------------------------------------------------------------------------- types
@pytest.mark.parametrize('kind', ['AmpOptimWrapper', 'mmengine.AmpOptimWrapper', AmpOptimWrapper])
def test_mixed_precision_on_a_cpu(kind):
    cfg = Config(dict(default_scope='mmpretrain', optim_wrapper=dict(type=kind, loss_scale='dynamic')))
    prepare_cpu(cfg)
    assert cfg.optim_wrapper.type == 'OptimWrapper' and 'loss_scale' not in cfg.optim_wrapper
    cfg = Config(dict(default_scope='mmpretrain', optim_wrapper=dict(type=OptimWrapper)))
    prepare_cpu(cfg)
    assert cfg.optim_wrapper.type is OptimWrapper


def test_classes_as_types(here):
    """As with the names."""
    path = changed(
        'from mmengine.hooks import CheckpointHook\n'
        'from mmengine.runner import Runner\n'
        'from mmpretrain.datasets import CustomDataset\n'
        'from mmpretrain.evaluation import Accuracy\n'
        'from mmpretrain.models import ImageClassifier\n'
        'model = dict(type=ImageClassifier)\n'
        'val_evaluator = dict(type=Accuracy)\n'
        'test_evaluator = val_evaluator\n'
        'runner_type = Runner\n'
        'default_hooks = dict(checkpoint=dict(type=CheckpointHook, save_best="accuracy/top1"))\n'
        'test_dataloader = dict(dataset=dict(type=CustomDataset))\n'
    )
    train([path, '--work-dir', 'w', '--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1'])
    cfg = Config.fromfile('w/changed.py')
    assert cfg.runner_type == 'mmstvit.Runner' and cfg.default_hooks.checkpoint.type == 'mmstvit.SafeCheckpointHook'
    train([path, '--work-dir', 'w', '--resume', '--cfg-options', 'train_cfg.max_epochs=2'])
    shutil.rmtree('set/val/dog')
    evaluate([path, 'epoch_8.pth', '--work-dir', 'test', '--out', 'out.json'])
    assert json.loads(Path('out.json').read_text())['accuracy/top1'] == 100


def test_hooks_and_strategies_as_classes():
    from mmengine._strategy import DDPStrategy, SingleDeviceStrategy
    from mmengine.hooks import EMAHook

    cfg = Config(dict(custom_hooks=[dict(type=CheckpointHook), dict(type='mmengine.EMAHook')]))
    add_hook(cfg, 'EMAHook', momentum=0.1)
    assert cfg.custom_hooks == [dict(type=CheckpointHook), dict(type='EMAHook', momentum=0.1)]
    cfg = Config(dict(launcher='none', strategy=dict(type=SingleDeviceStrategy)))
    assert choose_strategy(cfg) and cfg.runner_type == 'mmstvit.FlexibleRunner'
    cfg = Config(dict(launcher='none', strategy=dict(type=DDPStrategy)))
    with pytest.raises(UsageError, match='is for several processes'):
        choose_strategy(cfg)
    cfg = Config(
        dict(launcher='none', strategy=ConfigDict(type=SingleDeviceStrategy), custom_hooks=[dict(type=EMAHook)])
    )
    with pytest.raises(UsageError, match='EMAHook'):
        choose_strategy(cfg)


# ------------------------------------------------------------------------------------------------ faults in building
@pytest.mark.parametrize(
    'raised, what',
    [
        ('NotImplementedError("no such norm")', 'no such norm (NotImplementedError'),
        ('IndexError("list index out of range")', 'list index out of range (IndexError'),
        ('RuntimeError("shapes differ")', 'shapes differ (RuntimeError'),
        ('KeyError("width")', "finds no 'width' (KeyError"),
    ],
)
def test_faults_of_what_is_built(raised, what, here, fails):
    Path('faulty_neck.py').write_text(
        'from mmengine.model import BaseModule\n'
        'from mmengine.registry import MODELS\n'
        '@MODELS.register_module(force=True)\n'
        'class FaultyNeck(BaseModule):\n'
        '    def __init__(self):\n'
        f'        raise {raised}\n'
    )
    path = changed("custom_imports = dict(imports=['faulty_neck'])\nmodel = dict(neck=dict(type='FaultyNeck'))")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(here)
        patch.delitem(__import__('sys').modules, 'faulty_neck', raising=False)
        assert what in fails(train, path, '--work-dir', 'w')


def test_faults_of_a_run_keep_their_traceback():
    with pytest.raises(RuntimeError, match='a kernel'), one_line_errors():
        raise RuntimeError('a kernel')


class Head(nn.Module):
    def __init__(self, num_classes, class_agnostic=False):
        super().__init__()
        self.num_classes, self.class_agnostic = num_classes, class_agnostic


@pytest.mark.parametrize(
    'boxes, masks, agnostic, wrong',
    [
        ((3, 3, 3), (3, 3, 3), False, None),
        ((3, 3, 4), (3, 3, 3), False, 'model.roi_head.bbox_head.2.num_classes=4'),
        ((3, 3, 3), (3, 1, 3), False, 'model.roi_head.mask_head.1.num_classes=1'),
        ((3, 3, 3), (3, 1, 3), True, None),
    ],
)
def test_stages_of_a_cascade(boxes, masks, agnostic, wrong):
    """Region proposals have one class, and masks that are the same for all classes need none."""
    model = nn.Module()
    model.rpn_head, model.roi_head = Head(1), nn.Module()
    model.roi_head.bbox_head = nn.ModuleList(map(Head, boxes))
    model.roi_head.mask_head = nn.ModuleList(Head(n, agnostic) for n in masks)
    data = SimpleNamespace(metainfo=dict(classes=('a', 'b', 'c')))
    loops = [SimpleNamespace(dataloader=SimpleNamespace(dataset=data))]
    if wrong is None:
        check_classes(model, loops, training=True)
    else:
        with pytest.raises(UsageError, match=f'^{wrong}, and the data has 3 classes, a, b, c: '):
            check_classes(model, loops, training=True)
