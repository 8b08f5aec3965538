"""Which checkpoint a training goes on from, and what is said of the others."""

import os

import pytest
import torch

from mmstvit.engine.checkpoints import WholeFileBackend
from mmstvit.engine.whole_checkpoints import fault_of, newest_whole_checkpoint
from mmstvit.io.files import remove_unfinished


def save(folder, *names):
    """Checkpoints, the later ones written later."""
    for second, name in enumerate(names):
        torch.save({'weight': torch.arange(100.0)}, folder / name)
        os.utime(folder / name, (1000 + second, 1000 + second))


def point(folder, path, second=2000):
    (folder / 'last_checkpoint').write_text(str(path))
    os.utime(folder / 'last_checkpoint', (second, second))


def newest(folder, **options):
    path, passed_over = newest_whole_checkpoint(folder, **options)
    return path and path.name, [(broken.name, fault) for broken, fault in passed_over]


def spoil(path, how):
    content = bytearray(path.read_bytes())
    if how == 'bit':
        content[content.index(torch.arange(100.0).numpy().tobytes()) + 10] ^= 1
    path.write_bytes(b'' if how == 'empty' else content[: len(content) * 2 // 3] if how == 'cut' else content)


@pytest.mark.parametrize(
    'how,words', [('empty', 'it is empty'), ('cut', 'it is cut off or no checkpoint'), ('bit', 'in it is damaged')]
)
def test_broken_file_is_passed_over(how, words, tmp_path):
    save(tmp_path, 'epoch_9.pth', 'epoch_10.pth')
    point(tmp_path, tmp_path / 'epoch_10.pth')
    assert newest(tmp_path) == ('epoch_10.pth', [])
    spoil(tmp_path / 'epoch_10.pth', how)
    name, ((broken, fault),) = newest(tmp_path)
    assert name == 'epoch_9.pth' and broken == 'epoch_10.pth' and words in fault
    spoil(tmp_path / 'epoch_9.pth', how)
    assert newest(tmp_path)[0] is None and len(newest(tmp_path)[1]) == 2


def test_nothing_there(tmp_path):
    assert newest_whole_checkpoint(tmp_path / 'absent') == (None, [])
    assert newest_whole_checkpoint(tmp_path) == (None, [])
    point(tmp_path, tmp_path / 'epoch_3.pth')
    assert newest(tmp_path) == (None, [('epoch_3.pth', 'it is not there')])


def test_order(tmp_path):
    save(tmp_path, 'epoch_2.pth', 'interrupted_epoch_2_iter_70.pth', 'epoch_10.pth', 'best_top1_epoch_90.pth', 'x.pth')
    assert newest(tmp_path)[0] == 'epoch_10.pth'  # by number, and no weights alone
    (tmp_path / 'epoch_10.pth').unlink()
    assert newest(tmp_path)[0] == 'interrupted_epoch_2_iter_70.pth'
    # Killed before the new file's name was written down.
    point(tmp_path, tmp_path / 'epoch_2.pth', second=500)
    assert newest(tmp_path)[0] == 'interrupted_epoch_2_iter_70.pth'
    # Resumed from an earlier checkpoint: what the run before it had left is no part of this run.
    point(tmp_path, tmp_path / 'epoch_2.pth')
    assert newest(tmp_path)[0] == 'epoch_2.pth'
    spoil(tmp_path / 'epoch_2.pth', 'cut')
    assert newest(tmp_path)[0] == 'interrupted_epoch_2_iter_70.pth'


def test_moved_folder_and_own_names(tmp_path):
    save(tmp_path, 'weights_3.pth', 'epoch_2.pth')
    point(tmp_path, '/elsewhere/weights_3.pth')
    assert newest(tmp_path)[0] == 'weights_3.pth'
    (tmp_path / 'last_checkpoint').unlink()
    assert newest(tmp_path)[0] == 'epoch_2.pth'
    assert newest(tmp_path, filename_tmpl='weights_{}.pth')[0] == 'weights_3.pth'


def test_checkpoints_in_another_folder(tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    save(out, 'iter_100.pth', 'iter_200.pth')
    point(tmp_path, out / 'iter_200.pth')
    spoil(out / 'iter_200.pth', 'cut')
    assert newest(tmp_path)[0] == 'iter_100.pth'


def test_file_that_may_not_be_read(tmp_path, monkeypatch):
    save(tmp_path, 'epoch_1.pth')

    def refuse(*args):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('zipfile.ZipFile', refuse)
    assert fault_of(tmp_path / 'epoch_1.pth') == 'it cannot be read (Permission denied)'


def test_left_of_dead_processes_is_removed(tmp_path):
    """Not what another process is writing now, and nothing that only looks alike."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    dead = [f'.{pid}.epoch_1.pth', f'.{os.getpid()}.epoch_2.pth']
    kept = [f'.{os.getppid()}.epoch_3.pth', '.hidden', '.5th.pth', 'epoch_1.pth']
    for name in dead + kept:
        (tmp_path / name).write_text('x')
    assert sorted(path.name for path in remove_unfinished(tmp_path)) == sorted(dead)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A machine that fails after the renaming must not leave an empty file of that name."""
    path, sync, seen = tmp_path / 'epoch_1.pth', os.fsync, []

    def watched(number):
        seen.append((os.fstat(number).st_size, path.exists()))
        sync(number)

    monkeypatch.setattr(os, 'fsync', watched)
    WholeFileBackend().put(b'weights', path)
    assert seen == [(7, False)] and path.read_bytes() == b'weights' and os.listdir(tmp_path) == ['epoch_1.pth']
