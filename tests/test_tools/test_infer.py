"""mmstvit infer: which files it takes, what it writes, and that one broken file loses no other."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from run_helpers import DETECTION, TINY, saved, says
from torch.nn.modules.module import register_module_forward_hook

from mmstvit import get_model, inference_model
from mmstvit.apis.files import find_inputs
from mmstvit.apis.results import record
from mmstvit.cli.infer import main
from mmstvit.cli.tables import ROWS
from mmstvit.datasets import digit_scans
from mmstvit.io.videos import Video
from mmstvit.layers.block import Mlp
from mmstvit.models import STViT


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    return saved(tmp_path_factory.mktemp('classifier'), TINY, [f'digit {i}' for i in range(10)])


@pytest.fixture
def photos(tmp_path):
    """Five scans in a folder and one below it, and what is no image."""
    root = tmp_path / 'photos'
    (root / 'below').mkdir(parents=True)
    (root / '.hidden').mkdir()
    for i, image in enumerate(digit_scans('val')[0][:6]):
        cv2.imwrite(str(root / ('below' if i == 5 else '') / f'{i}.PNG'), image)
    cv2.imwrite(str(root / '.hidden' / 'thumb.png'), image)
    (root / 'notes.txt').write_text('no image')
    (root / 'folder.png').mkdir()
    return root


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_in_batches(classifier, photos, tmp_path, capsys):
    config, weights = classifier
    out, drawn, batches = tmp_path / 'new' / 'out.jsonl', tmp_path / 'drawn', []
    command = [config, str(photos), '--checkpoint', weights, '--batch-size', '4', '--device', 'cpu']
    handle = register_module_forward_hook(
        lambda module, args, result: batches.append(len(args[0])) if isinstance(module, STViT) else None
    )
    assert main([*command, '--out', str(out), '--draw', str(drawn)]) == 0
    handle.remove()
    assert batches == [4, 2]
    model = get_model(config, weights)
    files = [photos / name for name in ('0.PNG', '1.PNG', '2.PNG', '3.PNG', '4.PNG', 'below/5.PNG')]
    found = lines(out)
    assert [line['file'] for line in found] == [str(file) for file in files]
    for line, expected in zip(found, inference_model(model, files), strict=True):
        assert line['pred_class'] == expected['pred_class'] == f'digit {line["pred_label"]}'
        np.testing.assert_allclose(line['pred_scores'], expected['pred_scores'], atol=1e-6)
        assert line['pred_score'] == max(line['pred_scores'])
    pictures = [drawn / f'{file.relative_to(photos)}.png' for file in files]
    assert sorted(drawn.rglob('*.png')) == sorted(pictures)
    assert all(cv2.imread(str(picture)).std() > 0 for picture in pictures)
    told = capsys.readouterr().out
    assert all(file.name in told for file in files) and '6 files in' in told


def test_absolute_and_relative_paths_together(classifier, photos, tmp_path, monkeypatch):
    """Pictures are named below the folder that all files have in common, and a file that is named twice is one."""
    config, weights = classifier
    monkeypatch.chdir(photos)
    inputs = ['0.PNG', str(photos / 'below'), 'below/../1.PNG', str(photos / '0.PNG')]
    out, drawn = tmp_path / 'out.jsonl', tmp_path / 'drawn'
    command = [config, *inputs, '--checkpoint', weights, '--device', 'cpu', '--out', str(out), '--draw', str(drawn)]
    assert main(command) == 0
    assert [line['file'] for line in lines(out)] == ['0.PNG', str(photos / 'below' / '5.PNG'), 'below/../1.PNG']
    names = {path.relative_to(drawn).as_posix() for path in drawn.rglob('*.png')}
    assert names == {'0.PNG.png', 'below/5.PNG.png', '1.PNG.png'}


def test_linked_folders(photos, tmp_path):
    """They are looked through, and a link back to a folder has an end."""
    (tmp_path / 'more').mkdir()
    shutil.copy(photos / '0.PNG', tmp_path / 'more' / 'linked.png')
    (photos / 'link').symlink_to(tmp_path / 'more')
    (tmp_path / 'more' / 'back').symlink_to(photos)
    names = [path.relative_to(photos).as_posix() for path in find_inputs([str(photos)], ['.png'])]
    assert names == ['0.PNG', '1.PNG', '2.PNG', '3.PNG', '4.PNG', 'below/5.PNG', 'link/linked.png']


def test_drawings_are_not_written_over_inputs(classifier, photos, tmp_path, fails):
    """Nor are the results of an earlier run, before what is asked for is known to be possible."""
    config, weights = classifier
    drawn, out = photos / '0.PNG.png', tmp_path / 'out.jsonl'
    shutil.copy(photos / '1.PNG', drawn)
    out.write_text('earlier')
    command = (config, photos, '--checkpoint', weights, '--draw', photos, '--out', out)
    line = fails(main, *command)
    assert f'{drawn} would be written over' in line and 'another folder' in line
    assert drawn.read_bytes() == (photos / '1.PNG').read_bytes() and out.read_text() == 'earlier'


@pytest.mark.parametrize('device', ['gpu', 'cuda:99', 'meta'])
def test_a_device_that_is_not_there(device, classifier, photos, fails):
    config, weights = classifier
    assert 'this machine has cpu' in fails(main, config, photos, '--checkpoint', weights, '--device', device)
    if device != 'meta':  # shapes alone are good for counting
        with pytest.raises(ValueError, match='this machine has cpu'):
            get_model(config, device=device)


def test_best_classes_in_mixed_precision(classifier, photos, tmp_path, capsys):
    config, weights = classifier
    out = tmp_path / 'out.jsonl'
    command = [config, str(photos / '0.PNG'), '--checkpoint', weights, '--device', 'cpu', '--top-k', '3']
    assert main([*command, '--dtype', 'bfloat16', '--out', str(out)]) == 0
    (line,), exact = lines(out), inference_model(get_model(config, weights), photos / '0.PNG')['pred_scores']
    assert [one['label'] for one in line['top']] == np.argsort(line['pred_scores'])[::-1][:3].tolist()
    assert line['top'][0] == dict(label=line['pred_label'], score=line['pred_score']) | {'class': line['pred_class']}
    assert not np.array_equal(line['pred_scores'], exact)
    np.testing.assert_allclose(line['pred_scores'], exact, atol=0.02)
    printed = capsys.readouterr().out
    assert all(f'{one["class"]} {one["score"]:.1%}' in printed for one in line['top'])


def table(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def test_best_classes_as_csv(classifier, photos, tmp_path):
    config, weights = classifier
    (photos / '1.PNG').write_bytes(b'')
    out = tmp_path / 'out.csv'
    assert (
        main([config, str(photos), '--checkpoint', weights, '--device', 'cpu', '--topk', '2', '--out', str(out)]) == 1
    )
    found = table(out)
    assert list(found[0]) == ['file', 'class_1', 'score_1', 'class_2', 'score_2', 'error']
    assert [row['file'] for row in found] == [str(photos / f'{i}.PNG') for i in range(5)] + [
        str(photos / 'below/5.PNG')
    ]
    assert found[1]['class_1'] == '' and '1.PNG' in found[1].pop('error')
    scores = inference_model(config, weights, photos / '0.PNG')['pred_scores']
    second, first = np.argsort(scores)[-2:]
    assert (found[0]['class_1'], found[0]['class_2']) == (f'digit {first}', f'digit {second}')
    assert [float(found[0][f'score_{i}']) for i in (1, 2)] == pytest.approx([scores[first], scores[second]], abs=1e-6)


@pytest.fixture
def film(tmp_path):
    """An AVI file without loss of five scans, and the scans as they are decoded from it."""
    path, scans = tmp_path / 'films' / 'scans.avi', digit_scans('val')[0][:5]
    path.parent.mkdir()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'FFV1'), 10, scans.shape[:0:-1])
    for scan in scans:
        writer.write(cv2.cvtColor(scan, cv2.COLOR_GRAY2BGR))
    writer.release()
    return path, list(Video(str(path)))


@pytest.mark.parametrize('given', [['{film}'], ['{folder}'], ['--source', '{film}']])
def test_frames_of_a_video(given, classifier, film, tmp_path, capsys):
    """Each is predicted as an image is, and drawn into an mp4."""
    (config, weights), (path, frames), out = classifier, film, tmp_path / 'out.jsonl'
    given = [word.format(film=path, folder=path.parent) for word in given]
    command = [config, '--checkpoint', weights, '--device', 'cpu', '--batch-size', '2', '--frames', '4', *given]
    assert main([*command, '--out', str(out), '--draw', str(tmp_path / 'drawn')]) == 0
    found = lines(out)
    assert [(line['file'], line['frame'], line['time']) for line in found] == [(str(path), i, i / 10) for i in range(4)]
    for line, one in zip(found, inference_model(get_model(config, weights), frames[:4]), strict=True):
        np.testing.assert_allclose(line['pred_scores'], one['pred_scores'], atol=1e-6)
    drawn = list(Video(str(tmp_path / 'drawn' / 'scans.avi.mp4')))
    assert len(drawn) == 4 and all(frame.shape[0] == drawn[0].shape[0] > 200 for frame in drawn)
    assert '4 frames in' in capsys.readouterr().out
    assert main([*command, '--out', str(tmp_path / 'out.csv')]) == 0
    assert [(row['frame'], row['class_1']) for row in table(tmp_path / 'out.csv')] == [
        (str(line['frame']), line['pred_class']) for line in found
    ]


def test_a_camera(classifier, film, tmp_path, monkeypatch):
    """It is asked for frames until there are enough, or no more."""
    opened = []

    class Camera:
        def __init__(self, number):
            opened.append(number)
            self.frames = iter(film[1])

        def isOpened(self):
            return True

        def get(self, key):
            return 0.0  # many do not tell their rate

        def read(self):
            frame = next(self.frames, None)
            return frame is not None, frame

        def release(self):
            opened.pop()

    (config, weights), out = classifier, tmp_path / 'out.jsonl'
    command = [config, '--checkpoint', weights, '--device', 'cpu', '--source', '3', '--out', str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(cv2, 'VideoCapture', Camera)
        assert main(command) == 0
        assert [line['frame'] for line in lines(out)] == [0, 1, 2, 3, 4] and opened == []
        assert main([*command, '--frames', '2', '--draw', str(tmp_path / 'drawn')]) == 0
    assert [(line['file'], line['frame']) for line in lines(out)] == [('camera 3', 0), ('camera 3', 1)]
    assert len(list(Video(str(tmp_path / 'drawn' / 'camera 3.mp4')))) == 2


def test_a_broken_video_loses_no_image(classifier, photos, tmp_path, capsys):
    config, weights = classifier
    (photos / 'a.mp4').write_bytes(b'no video')
    out = tmp_path / 'out.jsonl'
    assert main([config, str(photos), '--checkpoint', weights, '--device', 'cpu', '--out', str(out)]) == 1
    assert [line['file'].rpartition('/')[2] for line in lines(out) if 'error' in line] == ['a.mp4']
    assert len(lines(out)) == 7


def test_reduced_tokens(photos, tmp_path):
    plain = TINY.replace('stvit-tiny_digits', 'vit-tiny_digits').replace('patch_size=8, stgm_layer=1,', 'patch_size=4')
    plain = plain.replace('        semantic_grid=(2, 2)', '')
    config, weights = saved(tmp_path, plain, [f'digit {i}' for i in range(10)])
    counts, out = [], tmp_path / 'out.jsonl'
    handle = register_module_forward_hook(
        lambda module, args, result: counts.append(result.shape[1]) if isinstance(module, Mlp) else None
    )
    command = [config, str(photos / '0.PNG'), '--checkpoint', weights, '--device', 'cpu']
    main([*command, '--reduce', 'gridpool:keep_rate=0.25,blocks=[0]', '--out', str(out)])
    handle.remove()
    assert counts == [16] * 4
    exact = inference_model(config, weights, photos / '0.PNG')['pred_scores']
    assert lines(out)[0]['pred_scores'] != pytest.approx(exact.tolist(), abs=1e-6)


def test_half_precision_is_for_gpus(classifier, photos, fails):
    command = (classifier[0], photos, '--checkpoint', classifier[1], '--device', 'cpu', '--dtype', 'float16')
    assert says(fails(main, *command), 'float16', 'cpu', 'bfloat16')


def test_several_labels_of_an_image(photos, tmp_path):
    text = (
        TINY + "model['head'].update(_delete_=True, type='MultiLabelLinearClsHead', num_classes=10, in_channels=32)\n"
    )
    config, weights = saved(tmp_path, text, [f'digit {i}' for i in range(10)])
    out = tmp_path / 'out.jsonl'
    assert main([config, str(photos), '--checkpoint', weights, '--device', 'cpu', '--out', str(out)]) == 0
    for line in lines(out):
        assert line['pred_labels'] == [i for i, score in enumerate(line['pred_scores']) if score >= 0.5]
        assert line['pred_classes'] == [f'digit {i}' for i in line['pred_labels']]


def test_a_work_dir(trained, photos, tmp_path, fails):
    """Its config and its checkpoint are found, also where it was moved."""
    moved = tmp_path / 'moved'
    moved.mkdir()
    for name in ('tiny.py', 'epoch_4.pth'):
        shutil.copy(trained.work_dir / name, moved)
    (moved / 'last_checkpoint').write_text('/where/it/was/epoch_4.pth')
    scores = []
    for folder in (trained.work_dir, moved):
        out = tmp_path / 'out.jsonl'
        assert main([str(folder), str(photos / '0.PNG'), '--device', 'cpu', '--out', str(out)]) == 0
        scores += [line['pred_scores'] for line in lines(out)]
    expected = inference_model(str(trained.config), str(trained.checkpoint), str(photos / '0.PNG'))['pred_scores']
    assert scores == [pytest.approx(expected.tolist(), abs=1e-6)] * 2
    shutil.copy(trained.checkpoint, moved / 'best_accuracy_top1_epoch_2.pth')
    (moved / 'epoch_4.pth').unlink()
    assert main([str(moved), str(photos / '0.PNG'), '--device', 'cpu']) == 0
    (moved / 'best_accuracy_top1_epoch_2.pth').unlink()
    assert 'give a checkpoint' in fails(main, moved, photos)
    (moved / 'other.py').write_text('')
    assert 'one training, it has other.py, tiny.py' in fails(main, moved, photos)


def test_pictures_name_the_classes(photos, tmp_path):
    """Two models that differ in the names of their classes alone draw different pictures."""
    pictures = []
    for name in ('digit', 'digit', 'number'):
        config, weights = saved(tmp_path, TINY, [f'{name} {i}' for i in range(10)])
        command = [config, str(photos / '0.PNG'), '--checkpoint', weights, '--device', 'cpu']
        main([*command, '--draw', str(tmp_path / 'drawn')])
        pictures.append(cv2.imread(str(tmp_path / 'drawn' / '0.PNG.png')))
    assert np.array_equal(*pictures[:2]) and not np.array_equal(*pictures[1:])


def test_weights_of_another_model_are_refused(classifier, photos, tmp_path, fails):
    """Of the head, which mmengine logs and leaves as it is, too."""
    _, weights = classifier
    (tmp_path / 'other.py').write_text(
        TINY.replace('head=dict(in_channels=32)', 'head=dict(in_channels=32, num_classes=7)')
    )
    line = fails(main, tmp_path / 'other.py', photos, '--checkpoint', weights, '--device', 'cpu')
    assert 'of another model: head.' in line


def test_a_broken_file_loses_no_other(classifier, photos, tmp_path, capsys):
    config, weights = classifier
    (photos / '1.PNG').write_bytes(b'')
    out = tmp_path / 'out.jsonl'
    assert main([config, str(photos), '--checkpoint', weights, '--device', 'cpu', '--out', str(out)]) == 1
    found = lines(out)
    assert [('error' in line, 'pred_class' in line) for line in found] == [(i == 1, i != 1) for i in range(6)]
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith('error')]
    assert len(errors) == 1 and '1.PNG' in errors[0]
    assert '1 could not be read' in captured.out


def test_classes_of_many_files_are_counted(classifier, photos, capsys):
    config, weights = classifier
    for i in range(ROWS):
        cv2.imwrite(str(photos / f'more{i}.png'), digit_scans('val')[0][0])
    main([config, str(photos), '--checkpoint', weights, '--device', 'cpu'])
    told = capsys.readouterr().out
    counts = [int(cells[-2]) for line in told.splitlines() if (cells := line.split('│'))[1:] and 'digit' in line]
    assert sum(counts) == ROWS + 6 and 'more0.png' not in told


def test_objects(photos, tmp_path):
    pytest.importorskip('mmdet')
    config, weights = saved(tmp_path, DETECTION.replace('{root}', str(tmp_path)), ['square', 'disc'])
    out = tmp_path / 'out.jsonl'
    command = [config, str(photos / '0.PNG'), '--checkpoint', weights, '--device', 'cpu', '--out', str(out)]
    main([*command, '--threshold', '0', '--draw', str(tmp_path / 'drawn')])
    (line,) = lines(out)
    sample = inference_model(get_model(config, weights), photos / '0.PNG').pred_instances
    assert len(line['objects']) == len(sample) > 0
    scores = [one['score'] for one in line['objects']]
    assert scores == sorted(scores, reverse=True) and scores[0] == pytest.approx(float(sample.scores.max()))
    assert all(one['class'] == ('square', 'disc')[one['label']] for one in line['objects'])
    assert cv2.imread(str(tmp_path / 'drawn' / '0.PNG.png')) is not None
    main([*command, '--threshold', '1'])
    assert lines(out)[0]['objects'] == []
    main([*command[:-1], str(tmp_path / 'out.csv'), '--threshold', '0'])
    rows = table(tmp_path / 'out.csv')
    assert [(row['class'], float(row['score'])) for row in rows] == [(o['class'], o['score']) for o in line['objects']]
    assert [float(rows[0][side]) for side in ('left', 'top', 'right', 'bottom')] == line['objects'][0]['box']


def test_areas(segmentation, tmp_path):
    """A row for each class that there is; a file that cannot be read loses no other."""
    folder, drawn = tmp_path / 'photos', tmp_path / 'drawn'
    shutil.copytree(segmentation.root / 'val', folder)
    (folder / '000001.png').write_bytes(b'')
    command = [str(segmentation.work_dir), str(folder), '--device', 'cpu', '--draw', str(drawn)]
    assert main([*command, '--out', str(tmp_path / 'out.csv')]) == 1
    rows = table(tmp_path / 'out.csv')
    model = get_model(segmentation.config, segmentation.checkpoint)
    for name in ('000000.png', '000002.png'):
        labels = inference_model(model, folder / name).pred_sem_seg.data
        shares = {row['class']: float(row['share']) for row in rows if row['file'] == str(folder / name)}
        expected = {model.dataset_meta['classes'][i]: float((labels == i).float().mean()) for i in labels.unique()}
        assert shares == pytest.approx(expected) and list(shares.values()) == sorted(shares.values(), reverse=True)
        assert cv2.imread(str(drawn / f'{name}.png')).shape == (64, 64, 3)
    assert [row['file'] for row in rows if row['error']] == [str(folder / '000001.png')]


def test_masks_are_those_of_coco():
    pytest.importorskip('mmdet')
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    from pycocotools.mask import decode

    masks = torch.zeros(2, 6, 8, dtype=torch.bool)
    masks[0, 1:3, 2:7] = masks[1, 4:, :3] = True
    boxes = torch.tensor([[2.0, 1, 7, 3], [0, 4, 3, 6]])
    found = InstanceData(bboxes=boxes, scores=torch.tensor([0.4, 0.9]), labels=torch.tensor([1, 0]), masks=masks)
    objects = record(DetDataSample(pred_instances=found), 'mmdet', torch.nn.Module(), 0.3)['objects']
    assert [(one['class'], one['box']) for one in objects] == [('0', [0, 4, 3, 6]), ('1', [2, 1, 7, 3])]
    for one, expected in zip(json.loads(json.dumps(objects)), masks.flip(0), strict=True):
        assert np.array_equal(decode(one['mask']), expected.numpy())


@pytest.mark.parametrize(
    'given,line',
    [
        (['nowhere.png'], 'there is no file or folder nowhere.png'),
        (['{empty}'], 'has no file that ends in .jpg'),
        (['{photos}', '--threshold', '0.5'], '--threshold is for detectors'),
        (['{photos}', '--batch-size', '0'], 'it must be at least 1'),
        (['{photos}', '--topk', '0'], 'it must be at least 1'),
        (['{photos}', '--out', 'results.txt'], 'name it *.jsonl or *.csv'),
        (['{photos}', '--frames', '3'], '--frames is for videos'),
        (['{photos}', '--source', '0'], 'give files or folders, or else one --source'),
        ([], 'give files or folders, or else one --source'),
        (['--source', '97'], 'camera 97: there is none'),
        (['--source', 'nowhere.mp4'], 'nowhere.mp4: there is no such file'),
        (['{photos}', '--checkpoint', 'nowhere.pth'], 'there is no checkpoint nowhere.pth'),
    ],
)
def test_wrong_arguments_are_told_in_one_line(given, line, classifier, photos, tmp_path, fails):
    (tmp_path / 'empty').mkdir()
    places = dict(empty=tmp_path / 'empty', photos=photos)
    assert line in fails(main, classifier[0], '--device', 'cpu', *(word.format(**places) for word in given))


def test_weights_must_be_given_where_none_are_published(photos, fails):
    assert 'no weights are published' in fails(main, 'stvit-tiny_digits', photos, '--device', 'cpu')
