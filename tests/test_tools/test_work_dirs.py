"""A work dir stands in the place of config and checkpoint."""

import json
import shutil

import cv2
import pytest
from mmengine.config import Config

from mmstvit.apis.configs import find_run
from mmstvit.cli import flops, show_tokens, train
from mmstvit.cli import test as test_cli
from mmstvit.cli.common import read_config
from mmstvit.datasets import digit_scans


def test_of_a_work_dir(trained, tmp_path):
    out = tmp_path / 'metrics.json'
    test_cli.main([str(trained.work_dir), '--work-dir', str(tmp_path / 'w'), '--out', str(out)])
    assert json.loads(out.read_text())['accuracy/top1'] == pytest.approx(trained.top1, abs=1e-4)


def test_what_is_written_goes_to_the_work_dir_that_is_given(trained, tmp_path, monkeypatch):
    """Also where it was moved, and its config names it as it was, from another folder."""
    moved, here = tmp_path / 'moved', tmp_path / 'here'
    moved.mkdir()
    here.mkdir()
    for name in ('tiny.py', 'epoch_4.pth', 'last_checkpoint'):
        shutil.copy(trained.work_dir / name, moved)
    cfg = Config.fromfile(moved / 'tiny.py')
    cfg.work_dir = 'runs/tiny'
    cfg.dump(moved / 'tiny.py')
    monkeypatch.chdir(here)
    assert read_config('../moved', {'work_dir': 'there'}).work_dir == 'there'
    test_cli.main(['../moved', '--confusion-matrix'])
    assert list(moved.glob('*/confusion_matrix.png')) and not list(here.iterdir())


@pytest.mark.parametrize('weights', [(), ('epoch_4.pth',)])
def test_pictures_of_a_work_dir(weights, trained, tmp_path):
    """The argument behind it is an input, or another checkpoint; inputs may be folders."""
    (tmp_path / 'scans').mkdir()
    for i in range(2):
        cv2.imwrite(str(tmp_path / 'scans' / f'{i}.png'), digit_scans('val')[0][i])
    given = [str(trained.work_dir), *(str(trained.work_dir / name) for name in weights), str(tmp_path / 'scans')]
    show_tokens.main([*given, '--device', 'cpu', '--show-dir', str(tmp_path / 'drawn')])
    assert sorted(path.name for path in (tmp_path / 'drawn').iterdir()) == [
        '0.png.png',
        '1.png.png',
        'contact_sheet.png',
    ]


def test_cost_of_a_work_dir(trained, tmp_path):
    figures = []
    for name in (trained.work_dir, trained.config):
        flops.main([str(name), '--json', str(tmp_path / 'figures.json')])
        figures.append(json.loads((tmp_path / 'figures.json').read_text()))
    assert figures[0] == figures[1]


def test_checkpoint_of_a_work_dir(trained, tmp_path):
    """A given one comes before its own; a config is left as it is."""
    folder = str(trained.work_dir)
    assert find_run(folder, None) == (folder, str(trained.checkpoint))
    assert find_run(folder, 'other.pth') == (folder, 'other.pth')
    assert find_run('digits/stvit-tiny_digits.py', None) == ('digits/stvit-tiny_digits.py', None)


def test_nothing_to_be_found(trained, tmp_path, fails):
    assert 'give a checkpoint after' in fails(test_cli.main, trained.config)
    assert 'must have the config of one training, it has none' in fails(train.main, tmp_path)
    assert 'give images, clips or folders' in fails(show_tokens.main, trained.work_dir)
