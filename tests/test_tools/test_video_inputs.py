"""Broken videos and lists in the commands: one line with the file's name, or clips that are skipped and counted."""

import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS, DefaultScope

from mmstvit import get_model
from mmstvit.apis.models import toolbox_of
from mmstvit.cli.test import main as evaluate
from mmstvit.cli.train import main as train
from mmstvit.datasets.clips import draw_clip, write_video
from mmstvit.engine.datasets import build_dataset
from mmstvit.engine.running import check_data
from mmstvit.io.videos import VideoError

pytest.importorskip('mmaction')

# Two runs of one second share mmengine's log.
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created')

CONFIG = """
_base_ = ['mmstvit::digits/swin3d_digits.py']
model = dict(backbone=dict(arch=dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1)), patch_size=(2, 8, 8)),
             cls_head=dict(in_channels=64))
clips = dict(data_prefix=dict(video='{root}'), ann_file='{root}/list.txt')
train_dataloader = dict(batch_size=2, dataset=clips)
val_dataloader = dict(batch_size=2, dataset=clips)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2, val_interval=2)
param_scheduler = []
"""
CLIPS = 6


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """Six whole clips in a folder."""
    root = tmp_path_factory.mktemp('clips')
    for i in range(CLIPS):
        write_video(root / f'{i}.mp4', draw_clip('train', i), 8)
    return root


@pytest.fixture
def case(good, tmp_path):
    """A copy of the clips with its list and config: ``root``, ``list``, ``config``, ``work_dir``."""
    root = tmp_path / 'clips'
    shutil.copytree(good, root)
    (root / 'list.txt').write_text(''.join(f'{i}.mp4 {i}\n' for i in range(CLIPS)))
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.replace('{root}', str(root)))
    return SimpleNamespace(root=root, list=root / 'list.txt', config=config, work_dir=tmp_path / 'work')


@pytest.fixture
def broken(case, broken_videos):
    """The broken files beside the whole ones, and what must be said of each: ``{path: words}``."""
    return {Path(shutil.copy(path, case.root / path.name)): said for path, said in broken_videos.items()}


@pytest.fixture
def run(case, capfd):
    """Run a command, and return what it printed; with ``fails`` its line."""

    def run(main, *args, fails=False):
        args = [str(arg) for arg in (case.config, *args, '--work-dir', case.work_dir)]
        if not fails:
            main(args)
            return ''.join(capfd.readouterr())
        with pytest.raises(SystemExit) as stop:
            main(args)
        out, err = capfd.readouterr()
        assert stop.value.code == 2 and 'Traceback' not in out + err, err
        line = err.strip().splitlines()[-1].strip('\0')
        assert line.startswith('error: ')
        return line

    return run


@pytest.fixture
def read(case):
    """The data set of the config's training, or test, as the commands build it."""

    def read(name='train_dataloader', skip_broken=False):
        cfg = Config.fromfile(case.config)
        toolbox_of(cfg)
        with DefaultScope.overwrite_default_scope('mmaction'):
            return build_dataset(cfg[name].dataset, num_classes=8, skip_broken=skip_broken)

    return read


def fill(case, *names):
    case.list.write_text(''.join(f'{name} 0\n' for name in names))


def cut_off(broken):
    return next(path for path in broken if path.name == 'cut_off.mp4')


def test_broken_file_stops_the_commands(case, run, broken):
    """Read by a worker in training, by the command itself in testing."""
    path = cut_off(broken)
    fill(case, '1.mp4', path)
    torch.save(dict(state_dict=get_model(case.config).state_dict(), meta={}), case.root / 'weights.pth')
    for args in (
        (train, '--cfg-options', 'train_dataloader.num_workers=1'),
        (evaluate, case.root / 'weights.pth'),
    ):
        line = run(*args, fails=True)
        assert line.startswith(f'error: {path}: it was cut off: ') and 'VideoError' not in line


def test_each_broken_file_is_named(case, read, broken):
    fill(case, *broken)
    for name in ('train_dataloader', 'test_dataloader'):
        for i, (path, said) in enumerate(broken.items()):
            with pytest.raises(VideoError) as error:
                read(name)[i]
            line = str(error.value)
            assert line.startswith(f'{path}: ') and said in line and '\n' not in line


def test_broken_clips_are_skipped_and_counted(case, run, broken, capfd):
    """In training alone, when asked, over all workers; the whole clips are still read."""
    fill(case, *broken, 'absent.mp4', *(f'{i}.mp4' for i in range(CLIPS)))
    held = case.root / 'held.txt'
    held.write_text('0.mp4 0\n1.mp4 1\n')
    options = ('train_dataloader.num_workers=2', f'val_dataloader.dataset.ann_file={held}')
    out = run(train, '--skip-broken', '--cfg-options', *options)
    broken = [*broken, case.root / 'absent.mp4']
    end = out[out.index(f'{len(broken)} of the {len(broken) + CLIPS} clips of {case.list} were skipped') :]
    for path in broken:
        assert f'\n  {path}\n' in end + '\n' and f'skipped: {path}: ' in out
    assert (case.work_dir / 'epoch_2.pth').is_file()
    # So does the config that the training leaves behind.
    cfg = Config.fromfile(case.work_dir / 'config.py')
    assert cfg.data_checks == dict(trust_data=False, skip_broken=True)
    RUNNERS.build(cfg).train()
    assert end.split(':')[0] in ''.join(capfd.readouterr())


def test_whole_clips_stand_in_for_broken_ones(case, read, broken):
    fill(case, *broken)
    with case.list.open('a') as file:
        file.write('2.mp4 2\n3.mp4 3\n')
    dataset = read(skip_broken=True)
    for i in range(len(broken)):
        assert dataset[i]['data_samples'].gt_label.item() in (2, 3)  # the label is that of the clip that was read
    assert dataset.broken() == [str(path) for path in broken]
    assert dataset.being_read() == []


def test_nothing_is_skipped_of_whole_clips(case, read):
    dataset = read(skip_broken=True)
    assert len([dataset[i] for i in range(CLIPS)]) == CLIPS and dataset.broken() == []


def test_no_clip_can_be_read(case, read, broken):
    fill(case, *broken)
    with pytest.raises(VideoError, match=f'{case.list}: none of its {len(broken)} '):
        read(skip_broken=True)[0]
    fill(case, 'gone.mp4')
    with pytest.raises(VideoError, match='1 of its 1 clips'):
        read(skip_broken=True)


def test_skipping_leaves_validation_alone(case):
    cfg = Config.fromfile(case.config)
    cfg.update(runner_type='mmstvit.Runner', data_checks=dict(skip_broken=True), work_dir=str(case.work_dir))
    runner = RUNNERS.build(cfg)
    assert runner.build_train_loop(cfg.train_cfg).dataloader.dataset.skip_broken is True
    assert runner.build_val_loop(cfg.val_cfg).dataloader.dataset.skip_broken is False


def test_skipping_without_videos(run, case):
    case.config.write_text("_base_ = ['mmstvit::digits/stvit-tiny_digits.py']")
    assert '--skip-broken is for data sets of the type VideoDataset' in run(train, '--skip-broken', fails=True)


@pytest.mark.parametrize(
    'text, said',
    [
        ('0.mp4 0\ngone.mp4 1\nlost.mp4 2\n', '2 of its 3 clips are not there, the first is {root}/gone.mp4'),
        ('0.mp4 0\n1.mp4\n', "line 2, '1.mp4', has no label behind the file name"),
        ('0.mp4 0\n\n1.mp4 1\n', "line 2, '', has no file name"),
        ('my clip.mp4 0\n', "line 1, 'my clip.mp4 0', is not a file name and a label; for names with spaces"),
        ('0.mp4 zero\n', "line 1, '0.mp4 zero', has the label 'zero', which is no class number"),
        ('0.mp4 -1\n', "line 1, '0.mp4 -1', has the label '-1', which is no class number"),
        ('0.mp4 8\n', "line 1, '0.mp4 8', has the label 8, and the model's classes end at 7"),
        ('', 'the list is empty'),
        (b'\xff\xfe\x00 1', 'it cannot be read as a list of clips'),
    ],
)
def test_faults_of_a_list(case, read, text, said):
    case.list.write_bytes(text if isinstance(text, bytes) else text.encode())
    for name in ('train_dataloader', 'test_dataloader'):
        if name == 'test_dataloader' and 'no label' in said:
            assert len(read(name)) == 2  # mmaction2 tests clips without labels
            continue
        with pytest.raises(VideoError) as error:
            read(name)
        assert str(error.value).startswith(f'{case.list}: {said}'.replace('{root}', str(case.root)))


def test_fault_of_a_list_in_the_commands(case, run):
    fill(case, '0.mp4', 'gone.mp4')
    line = run(train, fails=True)
    assert line.startswith(f'error: {case.list}: 1 of its 2 clips are not there, the first is {case.root}/gone.mp4')
    case.list.unlink()
    assert f'there is no data set at {case.list}' in run(train, fails=True)


def test_worker_that_crashes(case, run, monkeypatch):
    """A decoder may end its process at some file; the line has the names of those that were being read."""
    capture = cv2.VideoCapture

    class Decoder:
        def __init__(self, name, *rest):
            self.broken, self.capture = os.fsdecode(name).endswith('3.mp4'), capture(name, *rest)

        def read(self):
            if self.broken:
                os.kill(os.getpid(), signal.SIGSEGV)
            return self.capture.read()

        def __getattr__(self, name):
            return getattr(self.capture, name)

    monkeypatch.setattr(cv2, 'VideoCapture', Decoder)
    line = run(train, '--cfg-options', 'train_dataloader.num_workers=1', fails=True)
    assert 'crashed' in line and line.endswith(f': {case.root}/3.mp4')


def test_faults_of_a_pipeline_are_not_those_of_a_file(read, monkeypatch):
    from mmaction.datasets.transforms import Resize

    def fail(self, results):
        raise AssertionError('the setting is wrong')

    monkeypatch.setattr(Resize, 'transform', fail)
    with pytest.raises(AssertionError, match='the setting is wrong'):
        read(skip_broken=True)[0]


def test_checks_reach_data_sets_inside_others(case):
    inner = dict(type='VideoDataset', ann_file=str(case.list), data_prefix=dict(video=str(case.root)), pipeline=[])
    dataset = dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[inner, inner]))
    cfg = Config(dict(default_scope='mmaction', train_dataloader=dict(dataset=dataset)))
    toolbox_of(cfg)
    check_data(cfg, ('train_dataloader',))
    with DefaultScope.overwrite_default_scope('mmaction'):
        built = build_dataset(cfg.train_dataloader.dataset, num_classes=CLIPS, skip_broken=True)
        assert len(built) == 4 * CLIPS and all(part.skip_broken for part in built.dataset.datasets)
        with pytest.raises(VideoError, match="has the label 5, and the model's classes end at 4"):
            build_dataset(cfg.train_dataloader.dataset, num_classes=5)
