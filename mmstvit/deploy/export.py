"""Export a model to ONNX, OpenVINO or ``torch.export``, with what the file tells about its inputs and outputs."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..apis.models import classes_of, config_of, scope_of
from ..apis.pipelines import channels_of, toolbox_scope
from ..errors import UsageError
from ..io.files import unfinished
from ..layers.window_layout import WindowSpec
from ..measure.complexity import count
from ..measure.networks import default_size
from .formats import DTYPES, FORMATS, Format, Recorded
from .int8 import Calibration, Judged, judge, quantise, read_samples
from .preparation import metadata_of
from .runtimes import BATCH, SIZES, open_model
from .tracing import largest_difference, quiet, trace


# ---------------------------------------------------------------------------------------------- what is exported
class Exportable(nn.Module):
    """What is exported of a model, as a function of normalised inputs (B, channels, *size).

    Args:
        model: of a toolbox.
        function: takes the model and the inputs.
    """

    def __init__(self, model: nn.Module, function: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(B, channels, *size) -> scores (B, classes) or (B, classes, *size), or maps (B, C, rows, columns)."""
        return self.function(self.model, x)


def _scores(model: nn.Module, x: Tensor) -> Tensor:
    return model(x, mode='tensor').softmax(dim=-1)


def _clip_scores(model: Any, x: Tensor) -> Tensor:
    """Those of several clips of a video are to be averaged."""
    return model.extract_feat(x.unsqueeze(1), stage='head')[0].softmax(dim=-1)


def _maps(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    return tuple(model.extract_feat(x))


def _pixel_scores(model: Any, x: Tensor) -> Tensor:
    """Scores of each pixel, of the whole image at once."""
    scores, corners = model(x, mode='tensor'), model.align_corners
    return F.interpolate(scores, x.shape[2:], mode='bilinear', align_corners=corners).softmax(dim=1)


def network_of(model: nn.Module, scope: str) -> nn.Module:
    """Return the part of a model that is exported.

    Raises:
        UsageError: its kind is not known here.
    """
    if scope == 'mmdet':
        return Exportable(model, _maps)
    if scope == 'mmseg':
        from mmseg.models import EncoderDecoder

        # Those derived from it have heads of other inputs.
        if type(model) is not EncoderDecoder or model.out_channels == 1:
            raise UsageError(
                f'{type(model).__name__} is not exported: of mmseg an EncoderDecoder of two classes or more'
            )
        return Exportable(model, _pixel_scores)
    if scope == 'mmaction':
        from mmaction.models import Recognizer3D

        if not isinstance(model, Recognizer3D):
            raise UsageError(f'{type(model).__name__} is not exported: of mmaction2 a Recognizer3D with a head is')
        return Exportable(model, _clip_scores)
    from mmpretrain.models import ImageClassifier
    from mmpretrain.models.heads import ClsHead

    if not isinstance(model, ImageClassifier) or not isinstance(model.head, ClsHead):
        raise UsageError(f'{type(model).__name__} is not exported: of mmpretrain an ImageClassifier with a ClsHead is')
    return Exportable(model, _scores)


# --------------------------------------------------------------------------------------------------------- the export
class Exported(NamedTuple):
    """Outcome of an export.

    Attributes:
        files: what was written.
        outputs: names of the file's outputs.
        checked: inputs that the file was run on beside the model; of int8 in float32, before it was quantised.
        difference: the largest between the two, as a share of the largest output.
        int8: what 8-bit integers do to it, where it has them.
    """

    files: list[Path]
    outputs: list[str]
    checked: int
    difference: float
    int8: Judged | None = None


def format_of(path: Path, name: str | None = None) -> Format:
    """Return the format of a file that is to be written, by its ending.

    Args:
        path: the file.
        name: the format's name where it was given, which the ending must fit.

    Raises:
        UsageError: the ending is of no format, or of another one.
    """
    fits = [form for key, form in FORMATS.items() if name in (None, key) and form.ending == path.suffix]
    if not fits:
        endings = [form.ending for key, form in FORMATS.items() if name in (None, key)]
        raise UsageError(f'{path}: name it {" or ".join(f"*{ending}" for ending in endings)}')
    return fits[0]


def export_model(
    model: nn.Module,
    path: Path,
    shape: Sequence[int] | None = None,
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
    dtype: str = 'float32',
    int8: Calibration | None = None,
) -> Exported:
    """Write a model to a file, and check it in its runtime against PyTorch.

    Args:
        model: of :func:`mmstvit.get_model`, on the CPU.
        path: ``*.onnx``, ``*.xml`` of OpenVINO (a ``*.bin`` comes beside it) or ``*.pt2`` of ``torch.export``; it is
            whole and right, or not there. Its folder is made.
        shape: (height, width), of clips (frames, height, width); by default that of the config's test pipeline.
        dynamic_batch: whether the batch size is left open; else it is 1.
        dynamic_size: whether height and width are left open.
        dtype: ``'float32'``; of OpenVINO also ``'float16'``, in which weights are stored, or ``'bfloat16'``, in which
            it computes on processors that can, with weights stored in float16.
        int8: how it is quantised to 8-bit integers.

    Raises:
        UsageError: a setting does not fit the model or the format, the ``*.bin`` that comes beside a ``*.xml`` would be
            written over another file, or the exported network does not do what the model does.
        ImportError: a package of the extra ``deploy`` or ``openvino`` is not installed.
    """
    form = format_of(path)
    form.check_files(path)
    check_numbers(form, scope_of(model), dtype, int8 is not None)
    form.require(int8 is not None)
    network = network_of(model, scope_of(model)).eval()
    size, metadata = _describe(model, network, shape, dynamic_size)
    channels = channels_of(config_of(model))
    samples = int8 and read_samples(model, int8, (channels, *size))
    weights, precision, tolerance = DTYPES[dtype]
    metadata |= dict(weights='int8' if int8 else weights, precision=precision)
    batch = None if dynamic_batch else 1
    shapes = check_shapes((channels, *size), batch, dynamic_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        temporary = [stack.enter_context(unfinished(file)) for file in form.files(path)]
        recorded = record(network, (channels, *size), batch, dynamic_size, metadata)
        form.write(recorded, temporary[-1])
        difference = largest_difference(network, open_model(temporary[-1], trust=True), shapes, tolerance)
        judged = None
        if int8 and samples:
            quantise(temporary[-1], [image[None] for image in samples[0].images.numpy()], metadata)
            judged = judge(model, temporary[-1], samples, int8.min_agreement)
        for source, target in zip(temporary, form.files(path)):
            source.replace(target)
    return Exported(form.files(path), list(recorded.outputs), len(shapes), difference, judged)


def check_numbers(form: Format, scope: str, dtype: str, int8: bool) -> None:
    """Refuse types of numbers that a format does not have, or that cannot be judged.

    Raises:
        UsageError: as said.
    """
    if dtype not in form.dtypes:
        raise UsageError(f'--dtype {dtype} is for *{FORMATS["openvino"].ending} files of OpenVINO')
    if int8 and form.ending == '.pt2':
        raise UsageError('--int8 is for *.onnx and *.xml files')
    if int8 and dtype != 'float32':
        raise UsageError(f'--int8 and --dtype {dtype} exclude each other')
    if int8 and scope != 'mmpretrain':
        raise UsageError('--int8 is for classifiers of images: maps and clips have no classes to compare here')


@quiet()
@torch.no_grad()
def record(
    network: nn.Module,
    shape: Sequence[int],
    batch: int | None,
    dynamic_size: bool = False,
    metadata: dict[str, Any] | None = None,
) -> Recorded:
    """Record a network, ready to be written.

    Args:
        network: takes and gives tensors.
        shape: (C, ...) of one input.
        batch: the batch size; None leaves it open.
        dynamic_size: whether height and width are left open.
        metadata: for the file.

    Raises:
        UsageError: the network is made for one value of an axis that is to be open.
    """
    open_axes = {} if batch else {0: BATCH}
    if dynamic_size:
        open_axes.update(zip((2, 3), SIZES))
    # Where a size is open the example is one with borders to pad: what is done to them is recorded.
    channels, *size = shape
    example = torch.zeros(batch or 2, channels, *(n + 5 if dynamic_size else n for n in size))
    outputs = network(example)
    names = ['scores'] if isinstance(outputs, Tensor) else [f'level_{i}' for i in range(len(outputs))]
    metadata = dict(weights='float32', precision='float32') if metadata is None else metadata
    shape = [-1 if axis in open_axes else n for axis, n in enumerate(example.shape)]
    return Recorded(trace(network, example, open_axes), names, shape, open_axes, metadata)


def _describe(
    model: nn.Module, network: nn.Module, shape: Sequence[int] | None, dynamic_size: bool
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return the input size of a model, and the metadata of its file."""
    cfg, scope = config_of(model), scope_of(model)
    with toolbox_scope(scope):
        size = tuple(shape or default_size(cfg))
        if not size:
            raise UsageError("the config's test pipeline does not tell the input size: give it with --shape")
        check_size(model, size, bool(shape), dynamic_size, 3 if scope == 'mmaction' else 2)
        metadata = metadata_of(cfg, model, classes_of(model), None if dynamic_size else size, bool(shape))
        cost = count(network, torch.zeros(1, channels_of(cfg), *size))
    return size, metadata | dict(input_size=size, multiply_adds=cost.multiply_adds, parameters=cost.parameters)


def check_size(model: nn.Module, shape: tuple[int, ...], explicit: bool, dynamic: bool, rank: int) -> None:
    """Refuse a shape of another rank, and an open size where the network is made for one.

    Raises:
        UsageError: as said.
    """
    if explicit and (len(shape) != rank or min(shape) < 1):
        what = 'height and width' if rank == 2 else 'frames, height and width'
        raise UsageError(f'--shape {" ".join(map(str, shape))}: it takes {what}, {rank} positive numbers')
    if dynamic and (rank == 3 or isinstance(getattr(model.backbone, 'spec', None), WindowSpec)):
        raise UsageError(
            f'--dynamic-size is not for {type(model.backbone).__name__}: its windows and their masks are made for one '
            'input size; leave it out, and export a file for each size with --shape'
        )


def check_shapes(shape: tuple[int, ...], batch: int | None, dynamic_size: bool) -> list[tuple[int, ...]]:
    """Return input shapes to check an exported file on, given (channels, ...) of one input.

    There are two inputs of each size, of two batch sizes where ``batch`` is None, and three sizes where one is open.
    """
    channels, *size = shape
    sizes = [tuple(size)]
    if dynamic_size:
        height, width = size
        sizes += [(height + 33, width + 16), (height + 2, 2 * width - 5)]  # some that no patch size divides
    return [(n, channels, *size) for size in sizes for n in ((batch, batch) if batch else (1, 3))]
