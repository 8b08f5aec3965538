import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from sklearn.datasets import load_digits

from mmstvit.datasets import Digits, digit_scans


def as_set(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_the_splits_share_no_scan_and_make_up_the_whole():
    train, val = digit_scans('train'), digit_scans('val')
    assert (len(train[0]), len(val[0])) == (1347, 450)
    assert not as_set(train[0]) & as_set(val[0])
    every = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    assert as_set(every) == as_set(train[0]) | as_set(val[0])


def test_labels_belong_to_their_scans_and_classes_are_balanced():
    digits = load_digits()
    labels = {np.round(i * 255 / 16).astype(np.uint8).tobytes(): t for i, t in zip(digits.images, digits.target)}
    images, targets = digit_scans('val')
    assert [labels[image.tobytes()] for image in images] == targets.tolist()
    assert np.bincount(targets).min() >= 43


def test_the_split_follows_its_seed_and_fraction():
    assert as_set(digit_scans('val', seed=0)[0]) == as_set(digit_scans('val', seed=0)[0])
    assert as_set(digit_scans('val', seed=0)[0]) != as_set(digit_scans('val', seed=1)[0])
    assert len(digit_scans('val', val_fraction=0.5)[0]) == 899


@pytest.mark.parametrize('options,message', [(dict(split='test'), "split='test'"), (dict(val_fraction=1.0), '1.0')])
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        digit_scans(**{'split': 'train', **options})
    with pytest.raises(ValueError, match=message):
        Digits(**options)


def test_data_set_in_mmpretrain():
    pytest.importorskip('mmpretrain')
    init_default_scope('mmpretrain')
    pipeline = [dict(type='Resize', scale=32, interpolation='bicubic'), dict(type='PackInputs')]
    dataset = DATASETS.build(dict(type='mmstvit.Digits', split='val', pipeline=pipeline, indices=7))
    assert len(dataset) == 7
    assert dataset.metainfo['classes'] == tuple('0123456789')
    item = dataset[3]
    images, labels = digit_scans('val')
    assert item['inputs'].shape == (3, 32, 32)
    assert item['data_samples'].gt_label.item() == labels[3]
    assert item['data_samples'].ori_shape == (8, 8)
    assert abs(item['inputs'].float().mean() - images[3].mean()) < 8
