"""A config for a folder of one's own data, in all three toolboxes."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from run_helpers import ROOT, TINY

from mmstvit.apis.models import toolbox_of
from mmstvit.apis.own_data import config_for_folder
from mmstvit.apis.pipelines import toolbox_scope
from mmstvit.cli.check_data import main as check_data
from mmstvit.cli.train import main as train
from mmstvit.datasets.clips import make_clips
from mmstvit.datasets.scenes import make_scenes
from mmstvit.engine.datasets import build_dataset
from mmstvit.errors import UsageError

CLASSES = ('big cat', 'dog', 'emu')


def write_images(folder, names=CLASSES, number=5):
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(number):
            cv2.imwrite(str(folder / name / f'{name[0]} {i}.png'), np.full((40, 48, 3), 20 * i, np.uint8))


def read_lists(config):
    return [config.with_name(f'{config.stem}_{name}.txt').read_text().splitlines() for name in ('train', 'val')]


@pytest.fixture
def split(tmp_path):
    """A folder with a training and a validation set."""
    write_images(tmp_path / 'own/train')
    write_images(tmp_path / 'own/valid', number=1)
    return tmp_path / 'own'


@pytest.fixture
def photographs():
    return Config.fromfile(ROOT / 'configs/stvit/stvit-s_8xb128_in1k.py')


def test_folders_with_a_split(photographs, split, tmp_path):
    cfg = config_for_folder(photographs, str(split), tmp_path / 'w/own.py')
    for name, place in (('train', 'train'), ('val', 'valid'), ('test', 'valid')):
        dataset = cfg[f'{name}_dataloader'].dataset
        assert dataset.type == 'CustomDataset' and dataset.data_root == str(split / place) and not dataset.ann_file
        assert dataset.metainfo.classes == CLASSES and 'split' not in dataset
        assert dataset.pipeline == photographs[f'{name}_dataloader'].dataset.pipeline
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 3
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1,)
    assert cfg.train_dataloader.batch_size == 1 and cfg.train_dataloader.sampler.type == 'DefaultSampler'
    assert cfg.auto_scale_lr == dict(base_batch_size=1024, enable=True)
    assert cfg.param_scheduler[1].eta_min_ratio == pytest.approx(1e-5 / 1e-3)
    assert 'imagenet' not in cfg.pretty_text and 'data_root' not in cfg and 'work_dir' not in cfg
    assert photographs.model.head.num_classes == 1000


def test_folder_without_a_split(photographs, tmp_path):
    """A fifth of each class, the same each time, another one by another seed."""
    write_images(tmp_path / 'own', number=10)
    found = []
    for i, seed in enumerate((None, None, 1)):
        photographs.randomness = dict(seed=seed)
        file = tmp_path / f'w/own_{i}.py'
        cfg = config_for_folder(photographs, str(tmp_path / 'own'), file)
        found.append(read_lists(file))
        assert cfg.train_dataloader.dataset.ann_file == str(tmp_path / f'w/own_{i}_train.txt')
        assert cfg.test_dataloader.dataset.ann_file == str(tmp_path / f'w/own_{i}_val.txt')
        assert cfg.randomness.seed == (seed or 0)
    kept, held_out = found[0]
    assert len(kept) == 24 and len(held_out) == 6 and not set(kept) & set(held_out)
    assert sorted(line[-1] for line in held_out) == list('001122')
    assert found[1] == found[0] != found[2]


def test_trained_tested_and_inferred(tmp_path, monkeypatch, capsys):
    """The written config is used as it is, from another folder; a resumed training keeps its split."""
    from mmstvit import inference_model
    from mmstvit.cli.test import main as evaluate

    write_images(tmp_path / 'own', number=10)
    (tmp_path / 'tiny.py').write_text(TINY)
    monkeypatch.chdir(tmp_path)
    command = ['tiny.py', '--data', 'own', '--batch-size', '8', '--epochs', '1']
    train(command)
    said = capsys.readouterr().out
    assert 'from nothing' in said and '0.002 x batch / 32 = 0.0005' in said
    work_dir = tmp_path / 'work_dirs/tiny_own'
    config, checkpoint = str(work_dir / 'tiny_own.py'), str(work_dir / 'epoch_1.pth')
    assert Config.fromfile(config).train_dataloader.batch_size == 8
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    evaluate([config, checkpoint, '--work-dir', 'test', '--out', 'out.json'])
    assert 'accuracy/top1' in json.loads(Path('out.json').read_text())
    result = inference_model(config, checkpoint, str(tmp_path / 'own/emu/e 0.png'))
    assert result['pred_class'] in CLASSES and len(result['pred_scores']) == 3
    monkeypatch.chdir(tmp_path)
    before = read_lists(Path(config))
    cv2.imwrite('own/emu/new.png', np.zeros((40, 40, 3), np.uint8))
    train([*command[:-1], '2', '--resume'])
    assert read_lists(Path(config)) == before and (work_dir / 'epoch_2.pth').is_file()


def test_weights_to_begin_from(split, tmp_path, capsys):
    """A file that is named comes before those of the config; one that is not there is left out."""
    cfg = Config.fromfile(ROOT / 'configs/stvit/stvit-s-ft_8xb128-30e_in1k.py')
    published = cfg.model.init_cfg.checkpoint
    assert config_for_folder(cfg, str(split), tmp_path / 'w/own.py').model.init_cfg.checkpoint == published
    assert published in capsys.readouterr().out
    cfg.load_from = 'mine.pth'
    assert 'init_cfg' not in config_for_folder(cfg, str(split), tmp_path / 'w/own.py').model
    assert 'mine.pth' in capsys.readouterr().out
    cfg.load_from, cfg.model.init_cfg.checkpoint = None, 'work_dirs/absent.pth'
    assert 'init_cfg' not in config_for_folder(cfg, str(split), tmp_path / 'w/own.py').model
    assert 'from nothing' in capsys.readouterr().out


def test_settings_that_are_given_stay(photographs, split, tmp_path):
    photographs.optim_wrapper.optimizer.lr = 3e-4
    given = ('train_dataloader.batch_size', 'optim_wrapper.optimizer.lr')
    cfg = config_for_folder(photographs, str(split), tmp_path / 'w/own.py', given)
    assert cfg.train_dataloader.batch_size == 128
    assert cfg.optim_wrapper.optimizer.lr == 3e-4 and not cfg.auto_scale_lr.enable


# ----------------------------------------------------------------------------------------------------- other toolboxes
@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    make_scenes(folder, train=12, val=3, size=64, seed=0)
    return folder


def heads_of(cfg):
    heads = cfg.model.roi_head
    boxes = heads.bbox_head if isinstance(heads.bbox_head, list) else [heads.bbox_head]
    return [*(head.num_classes for head in boxes), heads.mask_head.num_classes]


@pytest.fixture
def detector():
    pytest.importorskip('mmdet')
    name = 'cascade-mask-rcnn_stvit-r-swin-s_fpn_ms-480-800-giou-4conv1f-3x_coco.py'
    return Config.fromfile(ROOT / 'configs/stvit_r' / name)


def test_coco_folder(detector, scenes, tmp_path):
    cfg = config_for_folder(detector, str(scenes), tmp_path / 'own.py')
    assert heads_of(cfg) == [10] * 4
    for name, place in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = cfg[f'{name}_dataloader'].dataset
        assert dataset.ann_file == str(scenes / f'annotations/instances_{place}.json')
        assert dataset.data_prefix.img == f'{scenes / place}/' and dataset.metainfo.classes == tuple('0123456789')
    assert cfg.val_evaluator.ann_file == cfg.val_dataloader.dataset.ann_file
    assert cfg.train_dataloader.dataset.filter_cfg == detector.train_dataloader.dataset.filter_cfg
    assert cfg.param_scheduler[0].end == 12 * 36 // 10 and 'init_cfg' not in cfg.model.backbone


def test_folder_of_roboflow(detector, scenes, tmp_path):
    """Its first category stands for the others."""
    for ours, theirs in (('train', 'train'), ('val', 'valid')):
        shutil.copytree(scenes / ours, tmp_path / theirs)
        content = json.loads((scenes / f'annotations/instances_{ours}.json').read_text())
        for category in content['categories']:
            category['supercategory'] = 'digits'
        content['categories'].insert(0, dict(id=99, name='digits', supercategory='none'))
        (tmp_path / theirs / '_annotations.coco.json').write_text(json.dumps(content))
    cfg = config_for_folder(detector, str(tmp_path), tmp_path / 'w/own.py')
    assert heads_of(cfg) == [10] * 4
    assert cfg.test_dataloader.dataset.ann_file == str(tmp_path / 'valid/_annotations.coco.json')
    assert cfg.test_dataloader.dataset.data_prefix.img == f'{tmp_path / "valid"}/'


@pytest.fixture
def single(scenes, tmp_path):
    """A COCO folder with one annotation file, named as that of a split."""
    shutil.copytree(scenes / 'train', tmp_path / 'coco/images')
    shutil.copy(scenes / 'annotations/instances_train.json', tmp_path / 'coco/train.json')
    return tmp_path / 'coco'


def test_single_coco_file(detector, single, tmp_path):
    cfg = config_for_folder(detector, str(single), tmp_path / 'w/own.py')
    parts = [json.loads((tmp_path / f'w/own_{name}.json').read_text()) for name in ('train', 'val')]
    kept, held_out = ({image['id'] for image in part['images']} for part in parts)
    assert len(kept) == 10 and len(held_out) == 2 and not kept & held_out
    assert {annotation['image_id'] for annotation in parts[1]['annotations']} <= held_out
    assert cfg.val_evaluator.ann_file == str(tmp_path / 'w/own_val.json')


def test_data_folder_is_no_work_dir(detector, single):
    before = {path: path.read_bytes() for path in single.rglob('*.*')}
    with pytest.raises(UsageError, match='the work dir would be the data folder'):
        config_for_folder(detector, str(single), single / 'own.py')
    assert {path: path.read_bytes() for path in single.rglob('*.*')} == before


def test_folders_of_clips(tmp_path, capsys):
    """With spaces in their names."""
    pytest.importorskip('mmaction')
    make_clips(tmp_path, train=4, val=2, size=64, seed=0)
    for name in ('jumping jack', 'walk'):
        for split in ('train', 'val'):
            (tmp_path / 'own' / split / name).mkdir(parents=True)
            for i, clip in enumerate(sorted((tmp_path / split).iterdir())[:2]):
                shutil.copy(clip, tmp_path / 'own' / split / name / f'clip {i}.mp4')
    cfg = Config.fromfile(ROOT / 'configs/digits/stvit-swin3d_digits.py')
    config_for_folder(cfg, str(tmp_path / 'own'), tmp_path / 'w/own.py').dump(tmp_path / 'w/own.py')
    cfg = Config.fromfile(tmp_path / 'w/own.py')
    assert cfg.model.cls_head.num_classes == 2
    assert cfg.val_evaluator.metric_options.top_k_accuracy.topk == (1,)
    with toolbox_scope(toolbox_of(cfg)):
        dataset = build_dataset(cfg.val_dataloader.dataset)
        assert [dataset.get_data_info(i)['label'] for i in range(len(dataset))] == [0, 0, 1, 1]
        assert dataset[0]['inputs'].shape[2] == 8  # frames
    check_data([str(tmp_path / 'w/own.py'), '--work-dir', str(tmp_path / 'w')])
    assert 'jumping jack' in capsys.readouterr().out


def test_two_data_sets_in_a_work_dir(photographs, tmp_path):
    """Each has its own split; that of a config which is written anew follows the data."""
    own = {}
    for name in ('two', 'three'):
        write_images(tmp_path / name, CLASSES[: 2 if name == 'two' else 3])
        config = tmp_path / f'w/{name}.py'
        config_for_folder(photographs, str(tmp_path / name), config).dump(config)
        own[name] = read_lists(config)
    assert read_lists(tmp_path / 'w/two.py') == own['two'] and len(own['two'][0]) < len(own['three'][0])
    write_images(tmp_path / 'two', ['emu'])
    config_for_folder(photographs, str(tmp_path / 'two'), tmp_path / 'w/two.py')
    assert len(read_lists(tmp_path / 'w/two.py')[0]) == len(own['three'][0])


def test_other_files_are_not_written_over(photographs, tmp_path):
    write_images(tmp_path / 'own')
    (tmp_path / 'w').mkdir()
    (tmp_path / 'w/own_val.txt').write_text('mine')
    with pytest.raises(UsageError, match='own_val.txt is there'):
        config_for_folder(photographs, str(tmp_path / 'own'), tmp_path / 'w/own.py')
    assert [path.read_text() for path in (tmp_path / 'w').iterdir()] == ['mine']


@pytest.mark.parametrize('name', [' cat', 'ca\tt', 'ca\nt'])
def test_names_that_no_list_can_have(name, photographs, tmp_path):
    write_images(tmp_path / 'own', ['dog', name])
    with pytest.raises(UsageError, match='rename them'):
        config_for_folder(photographs, str(tmp_path / 'own'), tmp_path / 'w/own.py')


# ------------------------------------------------------------------------------------------------------- bad folders
def no_folder(folder):
    shutil.rmtree(folder)


def nothing(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def one_class(folder):
    for split in ('train', 'valid'):
        shutil.rmtree(folder / split / 'dog')
        shutil.rmtree(folder / split / 'emu')


def no_images(folder):
    for file in (folder / 'train/emu').iterdir():
        file.rename(file.with_suffix('.txt'))


def class_missing(folder):
    shutil.rmtree(folder / 'valid/emu')


def class_more(folder):
    write_images(folder / 'valid', ['fox'])


def images_outside(folder):
    shutil.copy(folder / 'train/emu/e 0.png', folder / 'train')


def no_training_set(folder):
    shutil.rmtree(folder / 'train')


def coco(folder):
    shutil.rmtree(folder)
    (folder / 'annotations').mkdir(parents=True)


def broken_image(folder):
    for file in (folder / 'train').rglob('*.png'):
        file.write_bytes(b'no image')


@pytest.mark.parametrize(
    'spoil, said',
    [
        (no_folder, 'there is no folder'),
        (nothing, '0 folders of classes'),
        (one_class, '1 folders of classes (big cat)'),
        (no_images, 'in emu'),
        (class_missing, 'valid lacks classes of the training set: emu'),
        (class_more, 'not in the training set: fox'),
        (images_outside, 'train holds 1 files itself (e 0.png)'),
        (no_training_set, 'no folder train'),
        (coco, 'COCO'),
        (broken_image, '.png'),
    ],
)
def test_bad_folders(spoil, said, split, tmp_path, fails):
    (tmp_path / 'tiny.py').write_text(TINY)
    spoil(split)
    assert said in fails(train, tmp_path / 'tiny.py', '--data', split, '--epochs', 1, '--work-dir', tmp_path / 'w')


def test_bad_coco_folders(detector, scenes, tmp_path):
    with pytest.raises(UsageError, match='in the format of COCO'):
        config_for_folder(detector, str(scenes / 'train'), tmp_path / 'own.py')
    shutil.copytree(scenes / 'annotations', tmp_path / 'own/annotations')
    with pytest.raises(UsageError, match='the image .* is in none of'):
        config_for_folder(detector, str(tmp_path / 'own'), tmp_path / 'own.py')
    shutil.copy(tmp_path / 'own/annotations/instances_train.json', tmp_path / 'own/annotations/train2.json')
    with pytest.raises(UsageError, match='several annotation files of train'):
        config_for_folder(detector, str(tmp_path / 'own'), tmp_path / 'own.py')
