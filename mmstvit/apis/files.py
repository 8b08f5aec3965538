"""Find images and videos in folders, and predict them."""

import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from ..engine.folders import files_in
from ..errors import UsageError, one_line
from ..io.outputs import places_below, refuse_overwriting
from ..io.streams import Camera, video_writer
from ..io.videos import Video, VideoError
from ..visualization.clips import write_captioned
from .inference import infer
from .models import scope_of
from .results import THRESHOLD, as_line, draw_prediction, record

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
VIDEOS = ('.mp4', '.avi', '.mkv', '.mov', '.webm')


def endings_of(scope: str) -> tuple[str, ...]:
    """Return the endings of the files that a model of a toolbox takes."""
    return VIDEOS if scope == 'mmaction' else (*IMAGES, *VIDEOS)


def find_inputs(names: Sequence[str], endings: Sequence[str]) -> list[Path]:
    """Return the files that are named, and those with one of the endings in the folders that are, sorted, each once.

    Folders are looked through as in training, see :func:`.files_in`: linked ones too, and no hidden ones.

    Raises:
        UsageError: one is not there, or a folder has none.
    """
    files = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = [path / file for file in files_in(name) if os.path.splitext(file)[1].lower() in endings]
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


def open_source(source: str) -> Video | Camera:
    """Open a camera by its number, or else a video file."""
    return Camera(int(source)) if source.isdecimal() else Video(source)


def has_frames(file: Path | Video | Camera, scope: str) -> bool:
    """Return whether a model of this toolbox predicts the frames of an input one by one."""
    return scope != 'mmaction' and (not isinstance(file, Path) or file.suffix.lower() in VIDEOS)


def drawing_places(files: Sequence[Path | Video | Camera], folder: Path) -> dict[Any, Path]:
    """Name the drawing of each input, without its ending: below a folder, as :func:`.places_below` does.

    Raises:
        UsageError: a drawing would be written over an input.
    """
    paths = [file for file in files if isinstance(file, Path)]
    places: dict[Any, Path] = dict(zip(paths, places_below(folder, paths), strict=True)) if paths else {}
    drawn = (f'{place}{ending}' for place in places.values() for ending in ('.png', '.mp4'))
    refuse_overwriting(drawn, paths, 'draw into another folder')
    sources = (file for file in files if not isinstance(file, Path))
    return places | {source: folder / Path(source.filename).name for source in sources}


def predict_files(
    model: torch.nn.Module,
    files: Sequence[Path | Video | Camera],
    batch_size: int = 1,
    threshold: float = THRESHOLD,
    draw: Mapping[Any, Path] | None = None,
    topk: int = 1,
    dtype: torch.dtype = torch.float32,
    most: int | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Infer files, and yield a record of each as soon as it is there.

    Args:
        model: of :func:`mmstvit.get_model`.
        files: images or videos; of a video or a camera a model of images predicts each frame.
        batch_size: as of :func:`.infer`; of a camera each further one is a frame of delay.
        threshold: least score of an object, of a detector.
        draw: of :func:`drawing_places`, where each prediction is drawn into a picture, of videos into an mp4.
        topk: classes of a classifier that are recorded with names and scores, as ``top`` where there are several.
        dtype: as of :func:`.infer`.
        most: frames of a video that are predicted, by default all.

    Yields:
        ``file``, of a frame its number as ``frame``, from 0, and its ``time`` (of presentation, in seconds from the
        first one), and its :func:`.record`, or the ``error`` of what cannot be read, in one line.
    """
    scope = scope_of(model)
    waiting: deque[tuple] = deque()

    def inputs() -> Iterator[Any]:
        for file in files:
            for one in _inputs_of(file, scope, most):
                waiting.append((file, *one))
                yield one[1]

    answered = ((*waiting.popleft(), result) for result in infer(model, inputs(), batch_size, dtype))
    for file, some in groupby(answered, key=itemgetter(0)):
        with ExitStack() as stack:
            write = None
            for _, row, image, fps, result in some:
                if 'error' not in row and isinstance(result, Exception):
                    row['error'] = one_line(result)
                if 'error' not in row:
                    row.update(record(result, scope, model, threshold, topk))
                    place = draw and draw[file]
                    if place and fps is None:
                        _draw_file(place, result, row, model, threshold)
                    elif place:
                        write = write or stack.enter_context(video_writer(Path(f'{place}.mp4'), fps))
                        write(draw_prediction(result, row, scope, model, threshold, image[..., ::-1])[..., ::-1])
                yield row


def _inputs_of(file: Path | Video | Camera, scope: str, most: int | None) -> Iterator[tuple]:
    """Yield of an input the row of each prediction, what is inferred, and of frames how many there are a second."""
    if not has_frames(file, scope):
        yield dict(file=str(file)), file, None
        return
    try:
        source = Video(str(file)) if isinstance(file, Path) else file
        for number, frame in enumerate(islice(source, most)):
            yield dict(file=str(source.filename), frame=number, time=round(source.time, 3)), frame, source.fps
    except VideoError as error:
        yield dict(file=str(file), error=one_line(error)), None, None


def _draw_file(place: Path, result: Any, row: dict, model: torch.nn.Module, threshold: float) -> None:
    """Draw the prediction of an image, or of a video by a model of videos, into files of this name with endings."""
    from ..visualization.pictures import write_png  # and Matplotlib

    write_png(Path(f'{place}.png'), draw_prediction(result, row, scope_of(model), model, threshold))
    if scope_of(model) == 'mmaction':
        write_captioned(Path(f'{place}.mp4'), row['file'], as_line(row))
