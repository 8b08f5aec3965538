"""Find images and videos in folders, and predict them."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from ..errors import UsageError, one_line
from ..io.streams import Camera
from ..io.videos import Video, VideoError
from ..visualization.clips import write_captioned
from .frames import predict_frames
from .inference import infer
from .inputs import INPUT_ERRORS
from .models import scope_of
from .results import THRESHOLD, as_line, draw_prediction, record

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
VIDEOS = ('.mp4', '.avi', '.mkv', '.mov', '.webm')


def endings_of(scope: str) -> tuple[str, ...]:
    """Return the endings of the files that a model of a toolbox takes."""
    return VIDEOS if scope == 'mmaction' else (*IMAGES, *VIDEOS)


def find_inputs(names: Sequence[str], endings: Sequence[str]) -> list[Path]:
    """Return the files that are named, and those with one of the endings in the folders that are, sorted, each once.

    Raises:
        UsageError: one is not there, or a folder has none.
    """
    files = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = sorted(p for p in path.rglob('*') if _is_wanted(p, path, endings))
            if not inside:
                raise UsageError(f'the folder {name} has no file that ends in {", ".join(endings)}')
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UsageError(f'there is no file or folder {name}')
    named: dict[str, Path] = {}
    for file in files:
        named.setdefault(os.path.abspath(file), file)
    return list(named.values())


def _is_wanted(path: Path, root: Path, endings: Sequence[str]) -> bool:
    hidden = any(part.startswith('.') for part in path.relative_to(root).parts)
    return path.suffix.lower() in endings and not hidden and path.is_file()  # a folder may have such a name


def _below_common_folder(files: Sequence[Path]) -> list[Path]:
    """Return the paths of files below the folder that is common to all, whether they are absolute or relative."""
    full = [Path(os.path.abspath(file)) for file in files]
    if len({path.drive for path in full}) > 1:  # of Windows
        return [Path(path.drive.strip(':'), path.relative_to(path.anchor)) for path in full]
    root = os.path.commonpath([path.parent for path in full])
    return [path.relative_to(root) for path in full]


def picture_names(inputs: Sequence[str], *reserved: str) -> list[str]:
    """Name the picture of each input, without ending: like the file, numbered where a name would come again."""
    names: list[str] = list(reserved)
    for path in inputs:
        stem = name = Path(path).stem
        number = 1
        while name in names:
            number += 1
            name = f'{stem}_{number}'
        names.append(name)
    return names[len(reserved) :]


def open_source(source: str) -> Video | Camera:
    """Open a camera by its number, or else a video file.

    Raises:
        UsageError: there is no such camera or file, or it cannot be read.
    """
    try:
        return Camera(int(source)) if source.isdecimal() else Video(source)
    except VideoError as error:
        raise UsageError(one_line(error)) from error


def has_frames(file: Path | Video | Camera, scope: str) -> bool:
    """Return whether a model of this toolbox predicts the frames of an input one by one."""
    return scope != 'mmaction' and (not isinstance(file, Path) or file.suffix.lower() in VIDEOS)


def predict_files(
    model: torch.nn.Module,
    files: Sequence[Path | Video | Camera],
    batch_size: int = 1,
    threshold: float = THRESHOLD,
    draw: Path | None = None,
    topk: int = 1,
    dtype: torch.dtype = torch.float32,
    most: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Infer files, and yield a record of each as soon as it is there.

    Args:
        model: of :func:`mmstvit.get_model`.
        files: images or videos; of a video a model of images predicts each frame, see :func:`.predict_frames`.
        batch_size: as of :func:`.infer`.
        threshold: least score of an object, of a detector.
        draw: a folder that gets a picture of each prediction, of videos an mp4, named by its file below the folder that
            is common to all.
        topk: classes of a classifier that are recorded with names and scores, as ``top`` where there are several.
        dtype: as of :func:`.infer`.
        most: frames of a video that are predicted, by default all.

    Yields:
        ``file`` with its :func:`.record`, or with the ``error`` of one that cannot be read, in one line.
    """
    scope = scope_of(model)
    paths = [file for file in files if isinstance(file, Path)]
    names = dict(zip(paths, _below_common_folder(paths) if draw and paths else paths, strict=True))

    def place(file: Path | Video | Camera, ending: str) -> Path | None:
        name = names[file] if isinstance(file, Path) else Path(file.filename).name
        return draw and draw / f'{name}{ending}'

    options = dict(threshold=threshold, topk=topk, dtype=dtype)
    for frames, some in groupby(files, lambda file: has_frames(file, scope)):
        if not frames:
            yield from _predict_whole(model, list(some), place, batch_size, **options)
            continue
        for file in some:
            try:
                source = Video(str(file)) if isinstance(file, Path) else file
                drawn = place(file, '.mp4')
                yield from predict_frames(model, source, batch_size, draw=drawn, most=most, **options)
            except VideoError as error:
                yield dict(file=str(file), error=one_line(error))


def _predict_whole(
    model: torch.nn.Module,
    files: list[Path],
    place: Callable[[Path, str], Path | None],
    batch_size: int,
    threshold: float,
    topk: int,
    dtype: torch.dtype,
) -> Iterator[dict[str, Any]]:
    """Predict images, or videos with a model of videos."""
    scope = scope_of(model)
    options = dict(progress=False) if scope == 'mmaction' else {}  # of the windows of a video
    for file, result in zip(files, infer(model, files, batch_size, dtype, **options), strict=True):
        if isinstance(result, INPUT_ERRORS):
            yield dict(file=str(file), error=one_line(result))
            continue
        prediction = dict(file=str(file), **record(result, scope, model, threshold, topk))
        if picture := place(file, '.png'):
            from ..visualization.pictures import write_png  # and Matplotlib

            write_png(picture, draw_prediction(result, prediction, scope, model, threshold))
            if scope == 'mmaction':
                write_captioned(place(file, '.mp4'), file, as_line(prediction))
        yield prediction
