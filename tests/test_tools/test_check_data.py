"""Data is looked at before any training: what splits have and lack, files, a batch of each drawn with its labels."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from run_helpers import COLOURS, DETECTION, FOLDERS, SEGMENTATION, VIDEO, write_folders

from mmstvit.cli.check_data import main as check
from mmstvit.cli.train import main as train
from mmstvit.datasets.counts import Counts
from mmstvit.engine.data_report import size_range
from mmstvit.visualization.pictures import palette

pytestmark = pytest.mark.filterwarnings('ignore:.*has been created')


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Three classes of eight pictures each in two splits."""
    write_folders(tmp_path / 'set')
    (tmp_path / 'config.py').write_text(FOLDERS.replace('{root}', str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scenes(detection, tmp_path, monkeypatch):
    """The scenes of the detector, to be changed; the pipeline of the test loads no boxes, as most do."""
    shutil.copytree(detection.root / 'images', tmp_path / 'images')
    shutil.copy(detection.root / 'scenes.json', tmp_path)
    text = DETECTION.replace(
        "[*pipeline, dict(type='PackDetInputs', meta_keys",
        "[pipeline[0], pipeline[2], dict(type='PackDetInputs', meta_keys",
    )
    assert text != DETECTION
    (tmp_path / 'config.py').write_text(text.replace('{root}', str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(text):
    """The rows of the table that is printed: ``{name: numbers}``."""
    cells = [line.replace('│', '|').split('|')[1:-1] for line in text.splitlines() if line.startswith('│')]
    return {name.strip(): [number.strip() for number in numbers] for name, *numbers in cells}


def looked_at(capfd, *options):
    capfd.readouterr()
    check(['config.py', '--out', 'out', *options])
    return capfd.readouterr().out


def refused(capfd, *options):
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        check(['config.py', '--out', 'out', *options])
    assert stop.value.code == 2
    out, err = capfd.readouterr()
    assert 'Traceback' not in err
    return out, err


def sheet(name):
    picture = cv2.imread(f'out/{name}.png')
    assert picture is not None
    return picture[..., ::-1].astype(int)


# ------------------------------------------------------------------------------------------------------ mmpretrain
def test_splits_side_by_side(folders, capfd):
    shutil.rmtree('set/val/dog')
    Path('set/val/cat/0.png').unlink()
    found = rows(looked_at(capfd))
    assert found['samples'] == ['24', '15'] and found['width x height'] == ['32 x 32'] * 2
    assert found['0 cat'] == ['8', '7'] and found['1 dog'] == ['8', '0'] and found['2 emu'] == ['8', '8']


def test_what_a_split_lacks_and_files_in_both(folders, capfd):
    shutil.rmtree('set/val/dog')
    shutil.copy('set/train/emu/3.png', 'set/val/emu/9.png')
    out = looked_at(capfd)
    notes = [line for line in out.splitlines() if line.startswith('note: ')]
    assert any('val lacks 1 of 3 classes: dog' in note for note in notes)
    assert any('1 files of val' in note and 'emu/3.png' in note and 'emu/9.png' in note for note in notes)


def test_sheets_show_pictures_in_their_colours(folders, capfd):
    """The first four of the validation are of one class, in a row of panels of 160 pixels."""
    looked_at(capfd)
    picture = sheet('val')
    cat = np.array(COLOURS['cat'][::-1])
    near = (abs(picture - cat) < 80).all(-1)
    assert near.sum() == pytest.approx(4 * 160**2, rel=0.1)
    assert picture.shape[1] == pytest.approx(4 * 160, abs=60) and 160 < picture.shape[0] < 260
    looked_at(capfd, '--num', '2')
    assert sheet('train').shape[1] == pytest.approx(2 * 160, abs=40)


@pytest.mark.parametrize(
    'break_it, what',
    [
        (lambda: Path('set/val/cat').rename('set/val/zebra'), 'zebra'),
        (lambda: Path('set/val/cat/2.png').write_bytes(b'GIF'), 'set/val/cat/2.png'),
        (lambda: shutil.rmtree('set/val'), 'there is no data set at'),
        (lambda: [path.unlink() for path in Path('set/val').rglob('*.png')], 'set/val'),
    ],
)
def test_what_would_go_wrong(break_it, what, folders, capfd):
    """The other split is looked at all the same."""
    if what.startswith('there'):
        text = Path('config.py').read_text()
        Path('config.py').write_text(text.replace("dict(own, data_prefix='val')", "dict(own, data_root='gone')"))
    break_it()
    out, err = refused(capfd)
    assert [line for line in err.splitlines() if line.startswith('error: ') and what in line]
    assert rows(out)['samples'][0] == '24' and sheet('train').std() > 0


@pytest.mark.parametrize(
    'option, what',
    [
        ('model.head.num_classes=2', 'num_classes'),
        ('train_dataloader.dataset.pipeline.0.type=LoadImage', 'train_dataloader'),
        ('default_hooks.checkpoint.save_best=mAP', 'save_best=mAP'),
    ],
)
def test_config_that_does_not_fit_its_data(option, what, folders, capfd):
    _, err = refused(capfd, '--cfg-options', option)
    assert any(line.startswith('error: ') and what in line for line in err.splitlines())


def test_number_of_pictures(folders, fails):
    assert '--num' in fails(check, 'config.py', '--num', 0)


# ----------------------------------------------------------------------------------------------------------- mmdet
def test_objects_and_crowds(scenes, capfd):
    content = json.loads(Path('scenes.json').read_text())
    content['annotations'][0]['iscrowd'] = 1
    content['images'].append(dict(id=99, file_name='extra.png', height=64, width=96))
    shutil.copy('images/0.png', 'images/extra.png')
    shutil.copy('images/1.png', 'images/unlisted.png')
    Path('scenes.json').write_text(json.dumps(content))
    out = looked_at(capfd)
    found = rows(out)
    assert found['objects'] == ['7', '7'] and found['crowds'] == ['1', '1'] and found['images'] == ['9', '9']
    assert found['0 square'] == ['3', '3'] and found['1 disc'] == ['4', '4']
    assert found['images without objects'] == ['1', '1'] and found['width x height'][0] == '64 x 64 to 96 x 96'
    notes = [line for line in out.splitlines() if line.startswith('note: ')]
    assert any('unlisted.png' in note and 'in no split' in note and 'extra.png' not in note for note in notes)


def test_boxes_are_drawn_where_the_objects_are(scenes, capfd):
    """Of the test too, whose pipeline loads none: a frame of the colour of the class around each."""
    looked_at(capfd)
    content = json.loads(Path('scenes.json').read_text())
    colours = palette((1, 2)).astype(int)
    picture = sheet('val')  # two panels, of images of 64 x 96 and 96 x 64
    for annotation in content['annotations'][:2]:
        colour = colours[annotation['category_id'] - 1]
        assert (abs(picture - colour) < 3).all(-1).sum() > 100
    annotation, times = content['annotations'][0], 5  # 64 pixels become 320
    left = picture[:, : 10 + 96 * times]
    ys, xs = np.nonzero((abs(left - colours[annotation['category_id'] - 1]) < 3).all(-1))
    assert xs.max() - xs.min() == pytest.approx(annotation['bbox'][2] * times, abs=3)
    assert ys.max() - ys.min() == pytest.approx(annotation['bbox'][3] * times, abs=3)


# ------------------------------------------------------------------------------------------------------- mmaction2
def test_clips(video, tmp_path, monkeypatch, capfd):
    for folder in ('clips', 'clips.txt'):
        source = video.root / folder
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / folder)
    (tmp_path / 'config.py').write_text(VIDEO.replace('{root}', str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    shutil.copy('clips/0.mp4', 'clips/spare.mp4')
    out = looked_at(capfd)
    found = rows(out)
    assert found['samples'] == ['6', '6'] and found['frames'] == ['6', '6'] and found['0'] == ['3', '3']
    assert any('spare.mp4' in line for line in out.splitlines() if line.startswith('note: '))
    picture = sheet('val')  # two clips of two frames each, and the names of their classes beside them
    yellow = (picture[..., 0] > 200) & (picture[..., 1] > 200) & (picture[..., 2] < 120)
    assert yellow.sum() > 1000 and picture.shape[0] > 2 * 160 and picture.shape[1] > 2 * 160
    Path('clips.txt').write_text('0.mp4 0\n1.mp4 7\n')
    assert 'has the label 7' in refused(capfd)[1]


# ----------------------------------------------------------------------------------------------------------- mmseg
@pytest.fixture
def maps(segmentation, tmp_path, monkeypatch):
    """The scenes of the segmentor with their label maps, to be changed."""
    shutil.copytree(segmentation.root, tmp_path / 'set', ignore=shutil.ignore_patterns('work_dir', 'config.py'))
    (tmp_path / 'config.py').write_text(SEGMENTATION.replace('{root}', str(tmp_path / 'set')))
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'set' / 'maps' / 'train'


def test_label_maps_are_counted_and_drawn(maps, capfd):
    cv2.imwrite(str(maps / '000001.png'), np.full((64, 64), 255, np.uint8))  # nothing is labelled
    out = looked_at(capfd)
    found, present = rows(out), [set(np.unique(cv2.imread(str(path), 0))) for path in sorted(maps.iterdir())]
    assert found['samples'] == ['8', '3'] and found['0 ground'] == ['7', '3']
    for label in range(11):
        name = 'ground' if label == 0 else str(label - 1)
        assert found[f'{label} {name}'][0] == str(sum(label in labels for labels in present))
    assert 'can read this data' in out and 'in no split' not in out
    assert sheet('train').std() > 0


def test_label_maps_that_do_not_fit(maps, capfd, fails):
    """The check names each; a training stops at the first, in one line too."""
    wrong = {
        "it has the label 11, 200, the model's classes end at 10 and ignore_index is 255": [[11] * 63 + [200]] * 64,
        'it has 60 x 64 pixels, and its image has 64 x 64': np.zeros((64, 60)),
        'it is painted in colours, 3 channels': np.zeros((64, 64, 3)),
        'it has more than 8 bits a pixel': np.full((64, 64), 256, np.uint16),
        'it is no image': None,
    }
    for number, labels in enumerate(wrong.values()):
        if labels is None:
            (maps / f'00000{number}.png').write_bytes(b'GIF')
        else:
            depth = np.uint16 if np.max(labels) > 255 else np.uint8
            cv2.imwrite(str(maps / f'00000{number}.png'), np.asarray(labels, depth))
    _, err = refused(capfd)
    for number, what in enumerate(wrong):
        assert any(f'{maps}/00000{number}.png: {what}' in line for line in err.splitlines()), what
    line = fails(train, 'config.py', '--work-dir', 'w')
    assert str(maps) in line and any(what in line for what in wrong)


@pytest.mark.parametrize('orientation', [3, 6])
def test_label_maps_of_photos_that_exif_turns(orientation, maps, capfd):
    """As training reads them: 6 exchanges width and height, and the map has to be as the photo is shown."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = maps.parents[1] / 'train' / '000000.png'
    assert photo.is_file()
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(photo, exif=exif)
    upright, other = np.zeros((64, 48), np.uint8), np.zeros((48, 64), np.uint8)
    good, bad = (upright, other) if orientation == 6 else (other, upright)
    cv2.imwrite(str(maps / '000000.png'), good)
    assert 'can read this data' in looked_at(capfd)
    cv2.imwrite(str(maps / '000000.png'), bad)
    sizes = [f'{labels.shape[1]} x {labels.shape[0]}' for labels in (bad, good)]
    assert 'it has {} pixels, and its image has {}'.format(*sizes) in refused(capfd)[1]


# ---------------------------------------------------------------------------------------------------------- counts
def test_counts_of_several_sets_are_joined():
    one, other = Counts(left_out=2), Counts()
    one.add([dict(gt_label=1), dict(gt_label=[0, 1]), dict(label=np.int64(2))])
    other.add(
        [dict(instances=[dict(bbox_label=1), dict(bbox_label=0, ignore_flag=1)], width=4, height=3), dict(instances=[])]
    )
    one.join(other)
    assert one.labels == {0: 1, 1: 3, 2: 1}
    assert (one.samples, one.left_out, one.objects, one.crowds, one.empty) == (5, 2, 1, 1, 1)
    assert one.sizes == {(4, 3)}


@pytest.mark.parametrize(
    'sizes, text', [([], ''), ([8], '8'), ([8, 1200], '8 to 1,200'), ([(4, 3), (3, 4)], '3 x 3 to 4 x 4')]
)
def test_size_range(sizes, text):
    assert size_range(sizes) == text
