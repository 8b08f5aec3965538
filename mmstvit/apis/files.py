"""Find images and videos in folders, and predict them."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from ..errors import UsageError, one_line
from .inference import infer
from .inputs import INPUT_ERRORS
from .models import scope_of
from .results import THRESHOLD, draw_prediction, record

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
VIDEOS = ('.mp4', '.avi', '.mkv', '.mov', '.webm')


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


def predict_files(
    model: torch.nn.Module,
    files: Sequence[Path],
    batch_size: int = 1,
    threshold: float = THRESHOLD,
    out: Path | None = None,
    draw: Path | None = None,
    topk: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Iterator[dict[str, Any]]:
    """Infer files, and yield a record of each as soon as it is there.

    Args:
        model: of :func:`mmstvit.get_model`.
        files: images or videos.
        batch_size: as of :func:`.infer`.
        threshold: least score of an object, of a detector.
        out: a file that gets a line of JSON for each record.
        draw: a folder that gets a picture of each prediction, named by its file below the folder that is common to all.
        topk: classes of a classifier that are recorded with names and scores, as ``top`` where there are several.
        dtype: as of :func:`.infer`.

    Yields:
        ``file`` with its :func:`.record`, or with the ``error`` of one that cannot be read, in one line.
    """
    scope, names = scope_of(model), _below_common_folder(files) if draw else files
    options = dict(progress=False) if scope == 'mmaction' else {}  # of the windows of a video
    with open(out, 'w', encoding='utf-8') if out else nullcontext() as lines:
        results = infer(model, files, batch_size, dtype, **options)
        for file, name, result in zip(files, names, results, strict=True):
            if isinstance(result, INPUT_ERRORS):
                prediction = dict(file=str(file), error=one_line(result))
            else:
                prediction = dict(file=str(file), **record(result, scope, model, threshold, topk))
                if draw:
                    from ..visualization.pictures import write_png  # and Matplotlib

                    image = draw_prediction(result, prediction, scope, model, threshold)
                    write_png(draw / f'{name}.png', image)
            if lines:
                lines.write(json.dumps(prediction) + '\n')
                lines.flush()  # what was inferred is there whatever happens next
            yield prediction
