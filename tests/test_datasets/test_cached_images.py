"""Images kept in memory: the same samples as without, each step at its time, nothing changed in place."""

import cv2
import numpy as np
import pytest
import torch

from mmstvit.datasets import CachedImages

pytest.importorskip('mmpretrain')


class Spoil:
    """A step that changes the image in place."""

    def __call__(self, results):
        results['img'][:] = 0
        return results


@pytest.fixture
def folder(tmp_path):
    """Two classes of two pictures."""
    chance = np.random.default_rng(0)
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        for i in range(2):
            cv2.imwrite(str(tmp_path / name / f'{i}.png'), chance.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    return tmp_path


def config(folder):
    return dict(type='CustomDataset', data_prefix=str(folder), pipeline=[dict(type='LoadImageFromFile')])


def test_samples_are_those_of_the_files_which_are_read_once(folder):
    from mmpretrain.registry import DATASETS, TRANSFORMS

    pack = TRANSFORMS.build(dict(type='PackInputs'))
    plain = DATASETS.build(config(folder))
    cached = CachedImages(plain, [pack])
    expected = [pack(plain[i]) for i in range(4)]
    for path in folder.glob('*/*.png'):
        path.unlink()
    assert len(cached) == 4 and cached.metainfo['classes'] == ('a', 'b')
    for i, sample in enumerate(expected):
        assert torch.equal(cached[i]['inputs'], sample['inputs'])
        assert cached[i]['data_samples'].gt_label == sample['data_samples'].gt_label
        assert cached.get_data_info(i)['img_path'] == sample['data_samples'].img_path


def test_steps_that_change_the_image_in_place_leave_the_kept_one(folder):
    from mmpretrain.registry import DATASETS

    plain = DATASETS.build(config(folder))
    cached = CachedImages(plain, [Spoil()], lazy_init=True)
    assert not cached[0]['img'].any() and not cached[0]['img'].any()
    cached.pipeline.transforms.clear()
    assert np.array_equal(cached[0]['img'], plain[0]['img'])
