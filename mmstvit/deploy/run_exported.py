"""Infer images with an exported model: ``tools/deployment/run_exported.py``. Without PyTorch, but for ``*.pt2`` files.

This file, ``mmstvit/deploy/runtimes.py`` and ``mmstvit/io/image_check.py`` need NumPy, OpenCV, Pillow, and ONNX Runtime
or OpenVINO, and nothing else of mmstvit: the three may be copied into one folder of another machine.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

try:
    from mmstvit.deploy.runtimes import InputError, Opened, open_model, read_metadata
    from mmstvit.io.image_check import NOT_DECODED, ImageError, check_image_file, check_pixels
except ModuleNotFoundError:  # copied beside this file
    from image_check import (  # type: ignore[no-redef]
        NOT_DECODED,
        ImageError,
        check_image_file,
        check_pixels,
    )
    from runtimes import InputError, Opened, open_model, read_metadata  # type: ignore[no-redef]

_UNNAMED = 'the image'
_CV2 = {
    'nearest': cv2.INTER_NEAREST,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
    'area': cv2.INTER_AREA,
    'lanczos': cv2.INTER_LANCZOS4,
}


def _resize(image: np.ndarray, size: tuple[int, int], step: dict) -> np.ndarray:
    """Resize to (width, height), with the library and interpolation of the config."""
    check_pixels(_UNNAMED, *size, 'it would be resized to')
    interpolation = step['interpolation']
    if step['backend'] == 'pillow':
        from PIL import Image

        method = getattr(Image.Resampling, interpolation.upper())
        return np.asarray(Image.fromarray(image).resize(size, method))
    return cv2.resize(image, size, interpolation=_CV2[interpolation])


def _scaled(image: np.ndarray, factor: float) -> tuple[int, int]:
    height, width = image.shape[:2]
    return int(width * factor + 0.5), int(height * factor + 0.5)


def resize(image: np.ndarray, step: dict) -> np.ndarray:
    """Resize to ``scale``, (width, height); with ``keep_ratio`` the largest that its long and short edge allow."""
    width, height = step['scale']
    if not step['keep_ratio']:
        return _resize(image, (width, height), step)
    long, short = max(width, height), min(width, height)
    return _resize(image, _scaled(image, min(long / max(image.shape[:2]), short / min(image.shape[:2]))), step)


def resize_into(image: np.ndarray, step: dict) -> np.ndarray:
    """Resize to the largest that fits into ``scale``, (width, height), with the image's own aspect ratio."""
    width, height = step['scale']
    return _resize(image, _scaled(image, min(width / image.shape[1], height / image.shape[0])), step)


def resize_edge(image: np.ndarray, step: dict) -> np.ndarray:
    """Resize one edge to ``scale``, the other in proportion and rounded down."""
    scale, edge = step['scale'], step['edge']
    height, width = image.shape[:2]
    if edge == 'width' or (edge == 'short' and width < height) or (edge == 'long' and width > height):
        size = scale, int(scale * height / width)
    else:
        size = int(scale * width / height), scale
    return _resize(image, size, step)


def center_crop(image: np.ndarray, step: dict) -> np.ndarray:
    """Crop the middle of ``crop_size``, (width, height)."""
    width, height = step['crop_size']
    top, left = (max(0, round((n - c) / 2.0)) for n, c in zip(image.shape, (height, width)))
    return image[top : top + height, left : left + width]


# The steps of a test pipeline that are known here; the export writes them with all their settings.
STEPS = {'Resize': resize, 'ResizeInto': resize_into, 'ResizeEdge': resize_edge, 'CenterCrop': center_crop}


def check_preparation(meta: dict[str, Any]) -> None:
    """Refuse a model whose images cannot be prepared here.

    Raises:
        InputError: it takes no images, or the config prepares them in a way that is not known here.
    """
    if meta['layout'] != 'NCHW':
        raise InputError(f'the model takes clips ({meta["layout"]}), no images')
    for step in meta['transforms']:
        if step['type'] not in STEPS:
            raise InputError(
                f'the config prepares images by {step["type"]}, which is unknown here: prepare them yourself'
            )


def normalise(image: np.ndarray, meta: dict[str, Any]) -> np.ndarray:
    """Resize, crop and normalise an image.

    Args:
        image: (height, width, 3), 8 bits a channel, in BGR order as OpenCV reads it; gray (height, width).
        meta: of :func:`.read_metadata`.

    Returns:
        (height, width, 3 or 1), float32.

    Raises:
        ImageError: it would be resized to more pixels than are read.
    """
    for step in meta['transforms']:
        image = STEPS[step['type']](image, step)
    if meta['channel_order'] == 'RGB':
        image = image[..., ::-1]
    x = image.astype(np.float32).reshape(*image.shape[:2], -1)
    if meta['mean'] is not None:
        x = (x - np.float32(meta['mean'])) / np.float32(meta['std'])
    return x


def pad(x: np.ndarray, meta: dict[str, Any]) -> np.ndarray:
    """Pad an image of :func:`normalise` on the right and below, to (1, 3 or 1, height, width)."""
    divisor = meta['pad_size_divisor']
    size = meta['pad_size'] or [-(-n // divisor) * divisor for n in x.shape[:2]]
    pads = [(0, max(0, n - have)) for n, have in zip(size, x.shape[:2])]
    x = np.pad(x, [*pads, (0, 0)], constant_values=meta['pad_value'])
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None])  # (H, W, C) -> (1, C, H, W)


def read_image(path: str, gray: bool = False) -> np.ndarray:
    """Read an image file as OpenCV does, (height, width, 3), BGR, or (height, width) if ``gray``.

    Raises:
        ImageError: it is not there, no image, broken, or has too many pixels.
    """
    check_image_file(path)
    # By its name OpenCV would read what is there of an incomplete one.
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
    if image is None:
        raise ImageError(f'{path}: {NOT_DECODED}')
    return image


def infer(opened: Opened, image: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the outputs for an image by name, without the batch axis; those of pixels without the padding.

    Raises:
        InputError: the prepared image has not the size that the model is made for.
    """
    image = normalise(image, opened.metadata)
    x = pad(image, opened.metadata)
    if any(isinstance(n, int) and n != have for n, have in zip(opened.shape, x.shape)):
        raise InputError(
            f'the model is made for inputs of {opened.shape} and the prepared image has {list(x.shape)}: export it '
            'with that --shape'
        )
    named = {name: value[0] for name, value in zip(opened.outputs, opened.run(x))}
    if opened.metadata['task'] == 'segmentation':
        height, width = image.shape[:2]
        named = {name: value[:, :height, :width] for name, value in named.items()}
    return named


def result_of(scores: np.ndarray, classes: Sequence[str] | None) -> dict[str, Any]:
    """Format scores as the result of ``mmstvit.inference_model``, in JSON's types."""
    label = int(scores.argmax())
    name = classes[label] if classes else str(label)
    return dict(pred_class=name, pred_label=label, pred_score=float(scores[label]), pred_scores=scores.tolist())


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description='Infer images with a model of `mmstvit export`, without PyTorch. A classifier gives a line for '
        'each image, a segmentor the shares of the classes, a backbone the shapes of its maps. An image that cannot '
        'be read is told and left out; the exit code is then 1.',
        epilog='example: mmstvit run-exported model.onnx photo.jpg --topk 5 --out scores.json',
    )
    parser.add_argument(
        'model',
        metavar='MODEL',
        help='the exported file: *.onnx is run by ONNX Runtime, *.xml by OpenVINO, *.pt2 by PyTorch',
    )
    parser.add_argument('images', metavar='IMAGE', nargs='+', help='image files')
    parser.add_argument('--topk', type=int, help='classes to print, best first (default: 1)')
    parser.add_argument('--out', help='write all scores to FILE.json, or all outputs as arrays to FILE.npz')
    parser.add_argument('--threads', type=int, metavar='N', help='default as the runtime chooses')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='let PyTorch unpickle a *.pt2 file, so that code in it runs: only for files whose makers you know',
    )
    return parser.parse_args(argv)


def _line(outputs: dict[str, np.ndarray], classes: Sequence[str] | None, topk: int) -> str:
    if 'scores' not in outputs:
        return ', '.join(f'{name} {" x ".join(map(str, value.shape))}' for name, value in outputs.items())
    scores = outputs['scores']
    if scores.ndim == 3:  # of pixels
        shares = np.bincount(scores.argmax(0).ravel(), minlength=len(scores)) / scores[0].size
        present = [i for i in np.argsort(-shares, kind='stable') if shares[i]]
        return ', '.join(f'{classes[i] if classes else i} {shares[i]:.1%}' for i in present)
    best = np.argsort(-scores, kind='stable')[:topk]
    return ', '.join(f'{classes[i] if classes else i} {scores[i]:.4f}' for i in best)


def run(
    model: str,
    images: Sequence[str],
    topk: int | None = None,
    out: str | None = None,
    threads: int | None = None,
    trust_checkpoint: bool = False,
) -> bool:
    """Infer images, print the results, and return whether all could be inferred; the arguments are the command's.

    Raises:
        InputError: an argument that cannot take effect or is wrong.
    """
    if threads is not None and threads < 1:
        raise InputError(f'--threads {threads}: it must be at least 1')
    if trust_checkpoint and Path(model).suffix != '.pt2':
        raise InputError('--trust-checkpoint has no effect: no code is in the file, leave it out')
    opened = open_model(model, threads, trust=trust_checkpoint)
    meta = read_metadata(opened, model)
    check_preparation(meta)
    scored = meta['task'] == 'classification'
    if topk is not None and not scored:
        raise InputError('--topk has no effect: the model gives maps, no scores of images')
    if topk is not None and topk < 1:
        raise InputError(f'--topk {topk}: it must be at least 1')
    if out and Path(out).suffix not in (('.json', '.npz') if scored else ('.npz',)):
        raise InputError(f'--out {out}: name it {"*.json for the scores or " if scored else ""}*.npz for arrays')
    inferred, results = 0, []
    for path in images:
        try:
            outputs = infer(opened, read_image(path, meta['channel_order'] == 'GRAY'))
        except (InputError, ImageError, OSError, cv2.error) as error:  # the others are still inferred
            line = ' '.join(str(error).split()).removeprefix(f'{path}: ').removeprefix(f'{_UNNAMED}: ')
            print(f'error: {path}: {line}', file=sys.stderr)
            continue
        inferred += 1
        if out:  # maps of many images would fill the memory: no more is kept than is written
            names = ['scores'] if Path(out).suffix == '.json' else list(outputs)
            results.append((path, {name: outputs[name] for name in names}))
        print(f'{path}: {_line(outputs, meta["classes"], topk or 1)}', flush=True)
    if out and results:
        _write(out, results, meta['classes'])
    if inferred < len(images):
        print(f'{len(images) - inferred} of {len(images)} images could not be inferred', file=sys.stderr)
    return inferred == len(images)


def _write(out: str, results: list[tuple[str, dict[str, np.ndarray]]], classes: Sequence[str] | None) -> None:
    """Write the scores as JSON, or all outputs as arrays."""
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    if Path(out).suffix == '.json':
        content = [dict(image=path, **result_of(outputs['scores'], classes)) for path, outputs in results]
        Path(out).write_text(json.dumps(content, indent=1), encoding='utf-8')
    else:
        # Maps of images of several sizes do not stack: an array for each image and output.
        named: dict[str, Any] = {
            f'{i}/{name}': value for i, (_, outputs) in enumerate(results) for name, value in outputs.items()
        }
        np.savez(out, **named)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; the exit code is 1 where an image could not be inferred, 2 where an argument is wrong."""
    try:
        whole = run(**vars(parse_args(argv)))
    except (InputError, OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    if not whole:
        sys.exit(1)


if __name__ == '__main__':
    main()
