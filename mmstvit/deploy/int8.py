"""8-bit integers after training: calibrate an exported classifier on images, and judge it on others."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn as nn

from ..apis.tuning_data import Judge, Samples, load_samples
from ..errors import UsageError
from .formats import check_operators, save_onnx, save_openvino
from .runtimes import import_openvino, open_model

IMAGES = 512  # half of them to calibrate on
MIN_AGREEMENT = 0.97


class Calibration(NamedTuple):
    """How a network is quantised.

    Attributes:
        data: a folder of images, or a config, whose test data set is taken.
        images: at the most; half of them calibrate, the other half are held out.
        min_agreement: the least share of the held-out images that are to be of the same class as in float32.
    """

    data: str
    images: int = IMAGES
    min_agreement: float = MIN_AGREEMENT


class Judged(NamedTuple):
    """What 8 bits do to a classifier, in shares from 0 to 1.

    Attributes:
        calibrated: images that it was calibrated on.
        held_out: images that the rest is of.
        agreement: of the same class as in float32.
        top1: accuracy; ``None`` where labels are not known.
        top1_float32: that of the network in PyTorch.
    """

    calibrated: int
    held_out: int
    agreement: float
    top1: float | None
    top1_float32: float | None


def read_samples(model: nn.Module, calibration: Calibration, shape: Sequence[int]) -> tuple[Samples, Samples]:
    """Return the images to calibrate on, and those that are held out.

    Args:
        model: of :func:`mmstvit.get_model`, whose test pipeline prepares them.
        calibration: which and how many.
        shape: (C, H, W) of the exported network's input.

    Raises:
        UsageError: there are too few, one cannot be read, or they have another size.
    """
    if calibration.images < 2:
        raise UsageError(
            f'--images {calibration.images}: half of them calibrate and half are held out, give two or more'
        )
    if not 0 <= calibration.min_agreement <= 1:
        raise UsageError(f'--min-agreement {calibration.min_agreement}: it is a share, from 0 to 1')
    samples = load_samples(model, calibration.data, calibration.images)
    if tuple(samples.images.shape[1:]) != tuple(shape):
        image_size, input_size = (' x '.join(map(str, size)) for size in (samples.images.shape[1:], shape))
        raise UsageError(
            f'--int8: the test pipeline gives images of {image_size}, and the file is to take {input_size}'
        )
    return samples.part(0, 2), samples.part(1, 2)


def quantise(path: Path, images: Sequence[np.ndarray], metadata: dict[str, Any]) -> None:
    """Replace a float32 file by one whose weights and activations are 8-bit integers, with nncf.

    Args:
        path: ``*.onnx`` or ``*.xml``.
        images: arrays (B, C, H, W), normalised, by which the ranges of activations are found.
        metadata: of the new file.
    """
    openvino = import_openvino()
    import nncf

    settings = dict(model_type=nncf.ModelType.TRANSFORMER, subset_size=len(images))
    with contextlib.redirect_stdout(sys.stderr):  # nncf shows its progress
        if path.suffix == '.onnx':
            import onnx

            dataset = nncf.Dataset(list(images), lambda x: {'input': x})
            model = nncf.quantize(onnx.load(str(path)), dataset, **settings)
            check_operators(model)
            save_onnx(model, metadata, path)
            return
        core = openvino.Core()
        core.set_property({'ENABLE_MMAP': False})  # the file whose weights it has is to be replaced
        model = nncf.quantize(core.read_model(path), nncf.Dataset(list(images)), **settings)
        save_openvino(model, metadata, path)


def judge(model: nn.Module, path: Path, samples: tuple[Samples, Samples], min_agreement: float) -> Judged:
    """Compare an 8-bit file with the network on images that it was not calibrated on.

    Args:
        model: of :func:`mmstvit.get_model`.
        path: the file, which gives scores.
        samples: of :func:`read_samples`.
        min_agreement: see :class:`Calibration`.

    Raises:
        UsageError: too few are of the same class as in float32.
    """
    calibrated, held_out = samples
    reference, opened = Judge(model, held_out, batch_size=8), open_model(path)
    scores = torch.from_numpy(np.concatenate([opened.run(image[None])[0] for image in held_out.images.numpy()]))
    int8 = reference.of_logits(scores.double().clamp_min(1e-30).log())
    if int8['agreement'] < min_agreement:
        raise UsageError(
            f'int8 gives the class of float32 for {int8["agreement"]:.1%} of {len(scores)} held-out images, less than '
            f'{min_agreement:.1%} (--min-agreement): nothing is written; give more images, like those that it is for'
        )
    top1 = reference.of_logits(reference.dense)['top1']
    return Judged(len(calibrated.images), len(scores), int8['agreement'], int8['top1'], top1)
