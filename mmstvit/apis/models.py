"""Models by name, by config or as built: ``list_models``, ``get_model``, ``inference_model``.

A thin front over the toolboxes' own interfaces; the config's default scope says whose it is.
"""

import copy
import difflib
import fnmatch
from collections.abc import Iterable, Iterator
from os import PathLike
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..compat.requires import require
from ..io.checkpoints import trust_checkpoints
from ..paths import package_data
from .inputs import checked_image, checked_path, fetched, infer_each, settle

# default_scope of a config -> the extra of mmstvit that installs the toolbox
TOOLBOXES = {'mmpretrain': 'cls', 'mmdet': 'det', 'mmaction': 'video'}

ModelType = str | PathLike | Config | torch.nn.Module


def model_index() -> dict[str, dict]:
    """Name -> entry of every model in the model index, with the absolute path of its config."""
    root = package_data()
    entries = {}
    for metafile in mmengine.load(root / 'model-index.yml')['Import']:
        for entry in mmengine.load(root / metafile)['Models']:
            entries[entry['Name']] = {**entry, 'Config': str(root / entry['Config'])}
    return entries


def list_models(pattern: str | None = None) -> list[str]:
    """Names of the models of mmstvit, sorted.

    Args:
        pattern: shell wildcards, e.g. ``'*stvit-s*'``; any ending matches, as in mmpretrain.
    """
    return sorted(fnmatch.filter(model_index(), '*' if pattern is None else pattern + '*'))


def _read_config(model: str | PathLike | Config) -> tuple[Config, dict]:
    """The config of a name, a path or a config, and its entry in the model index."""
    if isinstance(model, Config):
        return copy.deepcopy(model), {}
    name = str(model)
    if name.endswith('.py'):
        return Config.fromfile(name), {}
    index = model_index()
    if name not in index:
        near = difflib.get_close_matches(name, index, n=3)
        hint = f'did you mean {" or ".join(near)}?' if near else 'mmstvit.list_models() has the names'
        raise ValueError(f'there is no model named {name}; {hint}')
    return Config.fromfile(index[name]['Config']), index[name]


def toolbox_of(cfg: Config) -> str:
    """The toolbox a config is for, imported.

    Raises:
        ValueError: its ``default_scope`` is none of the three.
        ImportError: the toolbox is not installed; the message says which extra installs it.
    """
    scope = cfg.get('default_scope')
    if scope not in TOOLBOXES:
        raise ValueError(f"the config's default_scope is {scope!r}, it must be one of {tuple(TOOLBOXES)}")
    require(scope, TOOLBOXES[scope], f'a config whose default_scope is {scope}')
    return scope


def published_weights(model: str | PathLike | Config) -> str:
    """The address of the weights that are published under a name, or that a config begins from.

    Raises:
        ValueError: an unknown name, or there are none.
    """
    cfg, entry = _read_config(model)
    weights = entry.get('Weights') or cfg.get('load_from')
    if not weights:
        what = 'this config' if isinstance(model, Config) else model
        raise ValueError(f'no weights are published for {what}: give a checkpoint, or pretrained=False')
    return weights


def get_model(
    model: str | PathLike | Config,
    pretrained: bool | str | PathLike = False,
    device: str | torch.device | None = None,
    trust_checkpoint: bool = False,
    **kwargs: Any,
) -> torch.nn.Module:
    """Build a model, for inference or as a part of something else.

    Args:
        model: a name of :func:`list_models`, the path of a config, or a config.
        pretrained: a checkpoint's path or URL; ``True`` for the weights published under the name; ``False`` for none.
        device: where to put it; by default it stays on the CPU.
        trust_checkpoint: whether code in the checkpoint may run. Files of mmengine and the usual ones of authors are
            read without; see :mod:`mmstvit.io.checkpoints`.
        **kwargs: override settings of the config's ``model``, e.g. ``backbone=dict(stgm_layer=6)``.

    Returns:
        The toolbox's model in evaluation mode: mmpretrain's classifier, mmdet's detector, mmaction2's recogniser.

    Raises:
        ValueError: an unknown name, ``pretrained=True`` where no weights are published, a checkpoint that is broken or
            could run code.
    """
    cfg, _ = _read_config(model)
    if pretrained is True:
        pretrained = published_weights(model)
    checkpoint = str(pretrained) if pretrained else None
    if kwargs:
        cfg.merge_from_dict({'model': kwargs})
    scope = toolbox_of(cfg)
    device = device or 'cpu'
    # The scope is set for the time of building alone, so that models of several toolboxes can live side by side.
    with DefaultScope.overwrite_default_scope(scope), trust_checkpoints(trust_checkpoint):
        if scope == 'mmpretrain':
            from mmpretrain.apis import get_model as build

            built = build(cfg, pretrained=checkpoint or False, device=device)
        elif scope == 'mmdet':
            from mmdet.apis import init_detector

            built = init_detector(cfg, checkpoint, device=device)
        else:
            from mmaction.apis import init_recognizer

            built = init_recognizer(cfg, checkpoint, device=device)
    return built.eval()


def inference_model(
    model: ModelType,
    *args: Any,
    device: str | torch.device | None = None,
    batch_size: int = 1,
    trust_checkpoint: bool = False,
    return_exceptions: bool = False,
    **kwargs: Any,
) -> Any:
    """Infer images or videos: ``inference_model(model, inputs)`` or ``inference_model(model, checkpoint, inputs)``.

    Args:
        model: a name of :func:`list_models`, the path of a config, a config, or a model from :func:`get_model`.
        *args: a checkpoint's path or URL (optional), then the inputs: an image's path or array (height, width, 3), in
            BGR order as OpenCV reads it, or a list of them; for video a clip's path. In the place of a path an address
            (http or https), which is downloaded and looked at as a file is. A name without a checkpoint means the
            published weights.
        device: where to run, by default the model's own device, or a GPU where there is one.
        batch_size: images that are run together, in mmpretrain; the other toolboxes run one at a time.
        trust_checkpoint: as in :func:`get_model`.
        return_exceptions: of a list, whether an exception stands in the place of an input that cannot be read. Without,
            the first one is raised when the others have been inferred; its attribute ``results`` is that list.
        **kwargs: handed on to mmpretrain's inferencer, e.g. ``show_dir='folder'`` to draw the results. For video
            ``window`` and ``stride`` in seconds, to infer a long one window by window, and ``progress=False`` for no
            bar (:func:`mmstvit.apis.video.infer_video`).

    Returns:
        What the toolbox gives: of mmpretrain a dict with ``pred_scores``, ``pred_label``, ``pred_score`` and
        ``pred_class``, of mmdet a ``DetDataSample``, of mmaction2 an ``ActionDataSample``. A list of inputs gives a
        list.

    Raises:
        ValueError: an unknown name, an input that is no image, cannot be read or has too many pixels (the environment
            variable ``MMSTVIT_MAX_PIXELS`` allows more), or a setting that would have no effect.
        FileNotFoundError: an input or the checkpoint is not there.
        TypeError: not one or two positional arguments after the model.
    """
    if len(args) not in (1, 2):
        raise TypeError('inference_model takes (model, inputs) or (model, checkpoint, inputs)')
    *checkpoint, inputs = args
    if isinstance(model, torch.nn.Module):
        if checkpoint or trust_checkpoint:
            raise TypeError('a built model has its weights already: leave checkpoint and trust_checkpoint out')
        model = model.eval() if device is None else model.to(device).eval()
    else:
        model = get_model(model, checkpoint[0] if checkpoint else True, chosen_device(device), trust_checkpoint)
    scope = scope_of(model)
    with DefaultScope.overwrite_default_scope(scope):
        many = isinstance(inputs, (list, tuple))
        with fetched(list(inputs) if many else [inputs]) as (taken, settled):
            results = settled(list(_INFER[scope](model, taken, batch_size, **kwargs)))
    return settle(results, many, return_exceptions)


def inference_stream(model: torch.nn.Module, inputs: Iterable, batch_size: int = 1, **kwargs: Any) -> Iterator[Any]:
    """Infer many images or videos, and give the result of each as soon as it is there.

    Of images the next batch is prepared while the model runs on one.

    Args:
        model: of :func:`mmstvit.get_model`, in evaluation mode.
        inputs: paths or arrays, as of :func:`mmstvit.inference_model`; addresses are not downloaded here.
        batch_size: the same.
        **kwargs: for video ``window``, ``stride`` and ``progress`` as there.

    Yields:
        Of each input in turn what :func:`mmstvit.inference_model` gives, or the exception that it has raised.

    Raises:
        ValueError: ``batch_size`` would have no effect.
    """
    scope = scope_of(model)
    infer = _stream_images if scope == 'mmpretrain' else _INFER[scope]
    # The caller's scope is its own between two results.
    with DefaultScope.overwrite_default_scope(scope):
        results = iter(infer(model, inputs, batch_size, **kwargs))
    none_left = object()
    while True:
        with DefaultScope.overwrite_default_scope(scope):
            result = next(results, none_left)
        if result is none_left:
            return
        yield result


def chosen_device(device: str | None) -> str:
    """The device that was asked for, or else a GPU where there is one."""
    return device or ('cuda' if torch.cuda.is_available() else 'cpu')


def scope_of(model: torch.nn.Module) -> str:
    """The toolbox of a model of :func:`get_model`."""
    return toolbox_of(getattr(model, '_config', None) or model.cfg)


def _infer_images(model: torch.nn.Module, inputs: list, batch_size: int, **kwargs: Any) -> list:
    from .images import CheckedInferencer

    return CheckedInferencer(model).infer_list([_as_string(i) for i in inputs], batch_size=batch_size, **kwargs)


def _stream_images(model: torch.nn.Module, inputs: Iterable, batch_size: int) -> Iterator[Any]:
    from .images import CheckedInferencer

    return CheckedInferencer(model).stream(map(_as_string, inputs), batch_size)


def _as_string(image: Any) -> Any:
    return str(image) if isinstance(image, PathLike) else image


def _infer_objects(model: torch.nn.Module, inputs: Iterable, batch_size: int) -> Iterator[Any]:
    from mmdet.apis import inference_detector
    from mmdet.utils import get_test_pipeline_cfg
    from mmengine.dataset import Compose

    from ..io.image_transforms import guard_images

    _refuse_batches(batch_size)

    def infer(image: Any) -> Any:
        image = checked_image(image)
        # mmdet itself would choose how to load all images by the first, and would keep that in the model's config.
        pipeline = copy.deepcopy(get_test_pipeline_cfg(model.cfg))
        if not isinstance(image, str):
            pipeline[0].type = 'mmdet.LoadImageFromNDArray'
        return inference_detector(model, image, Compose(guard_images(Compose(pipeline).transforms)))

    return infer_each(infer, inputs)


def _infer_videos(model: torch.nn.Module, inputs: Iterable, batch_size: int, **kwargs: Any) -> Iterator[Any]:
    from .video import infer_video

    _refuse_batches(batch_size)
    return infer_each(lambda video: infer_video(model, checked_path(video, 'video'), **kwargs), inputs)


def _refuse_batches(batch_size: int) -> None:
    if batch_size != 1:
        raise ValueError(f'batch_size={batch_size} has no effect here: mmdet and mmaction2 infer one input at a time')


_INFER = {'mmpretrain': _infer_images, 'mmdet': _infer_objects, 'mmaction': _infer_videos}
