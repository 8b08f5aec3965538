"""What the tests of commands and interfaces share: a small training run, a web server, a clean mmengine."""

import functools
import gc
import http.server
import json
import subprocess
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from run_helpers import (
    DETECTION,
    SEGMENTATION,
    TINY,
    VIDEO,
    one_run,
    quick_runs,
    read_scalars,
    serving,
    tool_command,
    tool_env,
)

from mmstvit.cli.train import main as train


@pytest.fixture(scope='session', autouse=True)
def caches(tmp_path_factory):
    """Downloads go to a temporary folder and not through a proxy."""
    folder = tmp_path_factory.mktemp('caches')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TORCH_HOME', str(folder / 'torch'))
        patch.setenv('MMENGINE_HOME', str(folder / 'mmengine'))
        patch.setenv('no_proxy', '127.0.0.1,localhost')
        yield folder


@pytest.fixture(scope='session', autouse=True)
def quick_everywhere():
    gc.collect()
    gc.freeze()
    with one_run(), quick_runs():  # fixtures of a module run before those of its tests
        yield


@pytest.fixture(autouse=True)
def clean_mmengine():
    with one_run():
        yield


@pytest.fixture
def fails(capfd):
    """Run a command that must fail, and return its one line."""

    def run(main, *args):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        assert stop.value.code == 2 and 'Traceback' not in out + err, err
        line = err.strip().splitlines()[-1].strip('\0')
        assert 'error: ' in line
        return line

    return run


@pytest.fixture(scope='session')
def run_tool(tmp_path_factory):
    """``run_tool('train.py', config, ...)`` runs a command from a folder outside the checkout."""
    folder = tmp_path_factory.mktemp('elsewhere')

    def run(tool, *args, check=True, **env):
        result = subprocess.run(
            tool_command(tool, *args), capture_output=True, text=True, cwd=folder, env=tool_env(**env)
        )
        if check:
            assert result.returncode == 0, result.stderr[-2000:]
        return result

    return run


@pytest.fixture(scope='session')
def tiny_config(tmp_path_factory):
    """A digits config that trains in seconds."""
    path = tmp_path_factory.mktemp('config') / 'tiny.py'
    path.write_text(TINY)
    return path


@pytest.fixture(scope='session')
def trained(tiny_config, tmp_path_factory):
    """A finished run of ``tiny_config``: ``config``, ``checkpoint``, ``scalars``, ``top1``."""
    work_dir = tmp_path_factory.mktemp('trained')
    with one_run():
        train([str(tiny_config), '--work-dir', str(work_dir)])
    scalars = read_scalars(work_dir)
    top1 = [line['accuracy/top1'] for line in scalars if 'accuracy/top1' in line]
    return SimpleNamespace(
        config=tiny_config, work_dir=work_dir, checkpoint=work_dir / 'epoch_4.pth', scalars=scalars, top1=top1[-1]
    )


@pytest.fixture(scope='session')
def web(tmp_path_factory):
    """A web server on loopback: files put into ``folder`` are at ``url(name)``."""
    folder = tmp_path_factory.mktemp('web')

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with serving(functools.partial(Quiet, directory=folder)) as address:
        yield SimpleNamespace(folder=folder, url=lambda name: f'{address}/{name}')


def draw(rng, size, kind, at, extent):
    """A grey image with a yellow square or disc."""
    image = rng.integers(90, 110, (*size, 3), dtype=np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    dy, dx = np.abs(y - at[0]), np.abs(x - at[1])
    inside = (dy < extent) & (dx < extent) if kind == 0 else dy**2 + dx**2 < extent**2
    image[inside] = (60, 240, 240)
    return image


def run_toolbox(template, root):
    config, work_dir = root / 'config.py', root / 'work_dir'
    config.write_text(template.replace('{root}', str(root)))
    with one_run():
        train([str(config), '--work-dir', str(work_dir)])
    return SimpleNamespace(
        root=root, config=config, work_dir=work_dir, checkpoint=work_dir / 'epoch_1.pth', scalars=read_scalars(work_dir)
    )


@pytest.fixture(scope='session')
def detection(tmp_path_factory):
    """A finished run of mmdet on eight made scenes, with STViT as the backbone of a RetinaNet."""
    pytest.importorskip('mmdet')
    root = tmp_path_factory.mktemp('detection')
    (root / 'images').mkdir()
    rng = np.random.default_rng(0)
    coco = dict(images=[], annotations=[], categories=[dict(id=1, name='square'), dict(id=2, name='disc')])
    for i in range(8):
        (height, width), kind = ((64, 96), (96, 64))[i % 2], i // 2 % 2
        y, x, extent = rng.integers(24, 40), rng.integers(24, 40), int(rng.integers(12, 20))
        cv2.imwrite(str(root / 'images' / f'{i}.png'), draw(rng, (height, width), kind, (y, x), extent))
        coco['images'].append(dict(id=i, file_name=f'{i}.png', height=height, width=width))
        box = [int(x) - extent, int(y) - extent, 2 * extent, 2 * extent]
        coco['annotations'].append(
            dict(id=i + 1, image_id=i, category_id=kind + 1, bbox=box, area=4 * extent**2, iscrowd=0)
        )
    (root / 'scenes.json').write_text(json.dumps(coco))
    return run_toolbox(DETECTION, root)


@pytest.fixture(scope='session')
def segmentation(tmp_path_factory):
    """A finished run of mmseg on eight scenes of digits with their label maps."""
    pytest.importorskip('mmseg')
    from mmstvit.datasets.scenes import make_scenes

    root = tmp_path_factory.mktemp('segmentation')
    make_scenes(root, train=8, val=3, size=64, progress=False)
    return run_toolbox(SEGMENTATION, root)


@pytest.fixture(scope='session')
def video(tmp_path_factory):
    """A finished run of mmaction2 on six made clips."""
    pytest.importorskip('mmaction')
    root = tmp_path_factory.mktemp('video')
    (root / 'clips').mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for i in range(6):
        writer = cv2.VideoWriter(str(root / 'clips' / f'{i}.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 10, (64, 64))
        for t in range(6):
            writer.write(draw(rng, (64, 64), i % 2, (32, 20 + 3 * t), 12))
        writer.release()
        lines.append(f'{i}.mp4 {i % 2}\n')
    (root / 'clips.txt').write_text(''.join(lines))
    return run_toolbox(VIDEO, root)


@pytest.fixture(scope='session')
def broken_videos(tmp_path_factory):
    """Files that no video can be read from, and what must be said of each: ``{path: words}``."""
    root = tmp_path_factory.mktemp('broken_videos')
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (30, 64, 64, 3), dtype=np.uint8)

    def encode(name, count, codec='mp4v'):
        writer = cv2.VideoWriter(str(root / name), cv2.VideoWriter_fourcc(*codec), 10, (64, 64))
        for frame in frames[:count]:
            writer.write(frame)
        writer.release()
        return (root / name).read_bytes()

    whole, old = encode('whole.mp4', 30), encode('whole.avi', 30, 'MJPG')
    encode('no_frames.mp4', 0)
    encode('one_frame.mp4', 1)
    contents = {
        'empty.mp4': b'',
        'text.mp4': b'<html>This video is not available.</html>\n',
        'cut_off.mp4': whole[: len(whole) // 2],
        'without_index.mp4': whole[: whole.index(b'moov') - 4],
        'cut_off.avi': old[: len(old) // 2],
        'noise.mp4': rng.integers(0, 255, 3000, dtype=np.uint8).tobytes(),
    }
    for name, content in contents.items():
        (root / name).write_bytes(content)
    said = {
        'no_frames.mp4': 'it cannot be read',
        'one_frame.mp4': 'it has one frame',
        'empty.mp4': 'the file is empty',
        'text.mp4': 'it is text and no video',
        'cut_off.mp4': 'it was cut off',
        'without_index.mp4': 'it cannot be read',
        'cut_off.avi': 'it was cut off',
        'noise.mp4': 'it cannot be read',
    }
    return {root / name: words for name, words in said.items()}
