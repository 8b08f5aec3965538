"""What holds for every data set that is drawn by seed into a folder: made whole, resumed, never mixed with others."""

import os
from types import SimpleNamespace

import cv2
import pytest
from run_helpers import run_here

from mmstvit.datasets import clips, digit_scans

scenes = pytest.importorskip('mmstvit.datasets.scenes', reason='pycocotools is not installed')

COUNTS = dict(train=6, val=3)
SCENES = SimpleNamespace(
    module=scenes,
    draw=lambda *args: scenes.draw_scene(*args).image,
    make=scenes.make_scenes,
    one='scene',
    suffix='.png',
    sizes=(64, 1024),
    lists={split: [f'annotations/instances_{split}.json'] for split in COUNTS},
    folders=('', 'maps/'),
)
CLIPS = SimpleNamespace(
    module=clips,
    draw=clips.draw_clip,
    make=clips.make_clips,
    one='clip',
    suffix='.mp4',
    sizes=(64, 512),
    lists={split: [f'{split}.txt', f'{split}.json'] for split in COUNTS},
    folders=('',),
)


@pytest.fixture(scope='module', params=[SCENES, CLIPS], ids=['scenes', 'clips'])
def kind(request, tmp_path_factory):
    """A kind of sets, and a small one of it, which no test changes: ``finished`` is its folder."""
    finished = tmp_path_factory.mktemp('finished')
    assert request.param.make(finished, **COUNTS, progress=False) == 9
    return SimpleNamespace(**vars(request.param), finished=finished, tool=f'digits_{request.param.one}s')


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def items(kind):
    return [f'{split}/{i:06d}{kind.suffix}' for split, count in COUNTS.items() for i in range(count)]


def whole(kind, names):
    """The files of items: the items and what lies beside them."""
    return [folder + name for folder in kind.folders for name in names]


def test_same_files_from_the_same_seed(kind, tmp_path):
    assert set(files(kind.finished)) == {*whole(kind, items(kind)), *sum(kind.lists.values(), [])}
    kind.make(tmp_path / 'again', **COUNTS, progress=False)
    assert files(tmp_path / 'again') == files(kind.finished)
    kind.make(tmp_path / 'other', **COUNTS, seed=1, progress=False)
    other = files(tmp_path / 'other')
    assert not [name for name in items(kind) if other[name] == files(kind.finished)[name]]


def test_splits_differ_and_share_no_scan(kind, monkeypatch):
    scans, draw_ink = [], kind.module.draw_ink
    monkeypatch.setattr(
        kind.module, 'draw_ink', lambda scan, *args: scans.append(scan.tobytes()) or draw_ink(scan, *args)
    )
    seen = {}
    for split in ('train', 'val'):
        scans.clear()
        assert len({kind.draw(split, i).tobytes() for i in range(30)}) == 30
        seen[split] = set(scans)
        assert seen[split] <= {scan.tobytes() for scan in digit_scans(split)[0]} and len(seen[split]) > 20
    assert not seen['train'] & seen['val']


def test_one_does_not_depend_on_the_others(kind, tmp_path):
    kind.make(tmp_path, train=2, val=1, progress=False)
    here, there = files(tmp_path), files(kind.finished)
    assert all(data == there[name] for name, data in here.items() if name.endswith(kind.suffix))


@pytest.mark.parametrize('drawn', [3, 7])  # within train, within val
def test_interrupted_and_run_again(kind, tmp_path, monkeypatch, drawn):
    replace = os.replace

    def stop(source, target, **options):
        if str(target).endswith(items(kind)[drawn]):
            raise KeyboardInterrupt
        replace(source, target, **options)

    monkeypatch.setattr('os.replace', stop)  # by it a file gets its name
    with pytest.raises(KeyboardInterrupt):
        kind.make(tmp_path, **COUNTS, progress=False)
    # A list is there when its files are, and nothing is half written.
    made = whole(kind, items(kind)[:drawn])
    assert set(files(tmp_path)) == {*made, *(kind.lists['train'] if drawn > COUNTS['train'] else [])}
    monkeypatch.undo()
    kind.make(tmp_path, **COUNTS, progress=False)
    assert files(tmp_path) == files(kind.finished)


def test_interrupted_while_a_list_is_written(kind, tmp_path, monkeypatch):
    """No file is left that is not whole."""

    def stop(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr('os.fsync', stop)
    with pytest.raises(KeyboardInterrupt):
        kind.make(tmp_path, train=1, val=1, progress=False)
    assert set(files(tmp_path)) == {*whole(kind, [f'train/000000{kind.suffix}'])}


def test_lost_files_are_made_again(kind, tmp_path):
    kind.make(tmp_path, **COUNTS, progress=False)
    assert kind.make(tmp_path, **COUNTS, progress=False) == 0
    (tmp_path / f'train/000004{kind.suffix}').unlink()
    (tmp_path / f'{kind.folders[-1]}val/000001{kind.suffix}').write_bytes(b'')
    assert kind.make(tmp_path, **COUNTS, progress=False) == 2
    (tmp_path / kind.lists['val'][0]).unlink()
    assert kind.make(tmp_path, **COUNTS, progress=False) == COUNTS['val']
    assert files(tmp_path) == files(kind.finished)


@pytest.mark.parametrize('other', [dict(train=5), dict(val=4), dict(size=96), dict(seed=1)])
def test_a_set_of_other_settings_is_refused(kind, other):
    before = files(kind.finished)
    with pytest.raises(FileExistsError, match=f'made with other settings .*{kind.one}s=.*size=.*--overwrite'):
        kind.make(kind.finished, **{**COUNTS, **other}, progress=False)
    assert files(kind.finished) == before


@pytest.mark.parametrize('text', ['not JSON', '[]', '{"info": {"settings": "mine"}}'])
def test_foreign_lists_are_refused(kind, tmp_path, text):
    path = tmp_path / kind.lists['val'][-1]
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(FileExistsError, match=f'{path} was made with other settings'):
        kind.make(tmp_path, **COUNTS, progress=False)
    assert list(files(tmp_path)) == [path.relative_to(tmp_path).as_posix()]


def test_rests_of_other_settings_are_refused(kind, tmp_path):
    """An interrupted set has no list yet that could tell; its files do."""
    kind.make(tmp_path / 'other', train=2, val=1, seed=1, progress=False)
    (tmp_path / 'train').mkdir()
    (tmp_path / f'other/train/000001{kind.suffix}').rename(tmp_path / f'train/000001{kind.suffix}')
    with pytest.raises(FileExistsError, match=f'000001{kind.suffix} is another {kind.one}'):
        kind.make(tmp_path, **COUNTS, progress=False)


def test_overwrite(kind, tmp_path):
    kind.make(tmp_path, train=8, val=2, seed=1, progress=False)
    (tmp_path / 'train' / 'notes.txt').write_text('mine')
    assert kind.make(tmp_path, **COUNTS, overwrite=True, progress=False) == 9
    assert files(tmp_path) == {**files(kind.finished), 'train/notes.txt': b'mine'}


def run(kind, monkeypatch, *args):
    run_here(monkeypatch, f'dataset_converters/{kind.tool}.py', *args)


def test_command(kind, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    args = ['--train', '6', '--val', '3']
    run(kind, monkeypatch, *args)
    assert files(tmp_path / 'data' / kind.tool) == files(kind.finished)
    out, err = capfd.readouterr()
    assert '100%' in out and not err
    assert f'6 {kind.one}s' in out.splitlines()[-1] and '9 drawn' in out.splitlines()[-1]
    run(kind, monkeypatch, *args)
    assert 'all there already' in capfd.readouterr().out
    run(kind, monkeypatch, *args, '--size', '96', '--overwrite')
    assert cv2.VideoCapture(f'data/{kind.tool}/val/000000{kind.suffix}').read()[1].shape == (96, 96, 3)


@pytest.mark.parametrize(
    'args, said',
    [
        (['out', '--train', '0'], 'train must be at least 1 {one}, got 0'),
        (['out', '--val', '-5'], 'val must be at least 1 {one}, got -5'),
        (['out', '--size', '8'], 'size must be from {sizes[0]} to {sizes[1]} pixels, got 8'),
        (['out', '--seed', '-1'], 'seed must not be negative'),
        (['file'], 'file is a file'),
        (['file/below'], 'file/below'),
    ],
)
def test_wrong_options(kind, tmp_path, monkeypatch, fails, args, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    assert said.format(**vars(kind)) in fails(lambda words: run(kind, monkeypatch, *words), *args)
    assert set(tmp_path.iterdir()) == {tmp_path / 'file'}
