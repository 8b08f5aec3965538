"""Rename a published checkpoint to the names of mmstvit: ``tools/model_converters/published_to_mmstvit.py``."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.registry import init_default_scope
from torch import Tensor

from ..apis.weights import check_checkpoint, read_checkpoint
from ..converters import fit
from ..converters.deit import join_tokens
from ..converters.published import convert_published_state_dict
from ..converters.recognise import backbone_of
from ..converters.wrappers import unwrapped
from ..errors import UsageError, as_usage_error, one_line_errors
from ..io.checkpoints import SAFETENSORS, save_safetensors, trust_checkpoints
from ..io.files import unfinished
from ..registry import MODELS
from .arguments import add_shared


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='Write a published checkpoint of DeiT, ViT, DINOv2, Swin, STViT-R or T2T-ViT in the names of '
        'mmstvit. The layout is recognised by its names. Published files load unconverted too; this is for those who '
        "want to look at them, cut them or hand them on. With --plain any checkpoint, a training's for instance, is "
        'written with nothing but weights, under the names that they have, and names of classes: plain torch.load '
        'reads that.',
        epilog='example: mmstvit convert stvit-r-swin-s.pth renamed.safetensors; '
        'mmstvit convert --plain work_dirs/digits/epoch_40.pth weights.pth',
    )
    parser.add_argument('src', metavar='SRC', help='the published file or its URL')
    parser.add_argument('dst', metavar='DST', help='the file to write; *.safetensors is written as that')
    parser.add_argument('--plain', action='store_true', help='keep names; write weights and classes, nothing else')
    parser.add_argument('--overwrite', action='store_true', help='replace DST where it exists')
    add_shared(parser, '--trust-checkpoint')
    return parser.parse_args(argv)


def report(converted: dict[str, Tensor]) -> list[str]:
    """Report how a converted file fits its backbone, in lines.

    Raises:
        ValueError: it does not, or tensors that tell the backbone's size are missing.
    """
    config = backbone_of(converted)
    init_default_scope('mmstvit')
    with torch.device('meta'):
        own = MODELS.build(config).state_dict()
    if config.get('num_register_tokens'):
        converted = dict(converted)
        join_tokens(converted)
    other = Counter(name.split('.')[0] for name in converted if not name.startswith('backbone.'))
    options = ', '.join(f'{key}={value!r}' for key, value in config.items() if key != 'type')
    theirs = {name.removeprefix('backbone.'): v for name, v in converted.items() if name.startswith('backbone.')}
    fits = fit.report('backbone', theirs, '', own, limit=20)
    lines = [f'{config["type"]}({options})', *fits.split('; ')]
    if other:
        lines.append('beside the backbone: ' + ', '.join(f'{part} ({n} tensors)' for part, n in other.items()))
    return lines


def plain_weights(checkpoint: dict) -> dict[str, Tensor]:
    """Return the weights of a checkpoint alone, under their names, none a part of a larger tensor.

    Raises:
        ValueError: it has something else than tensors in their place.
    """
    weights = unwrapped(checkpoint)
    other = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if other or not weights:
        raise ValueError(f'this is no checkpoint with weights: it has {fit.some(other) if other else "nothing"}')
    return {name: value.detach().clone() for name, value in weights.items()}


def plain_meta(checkpoint: dict) -> dict[str, Any]:
    """Return the names of classes and what else describes the data, in types of JSON."""
    meta = checkpoint.get('meta')
    data = meta.get('dataset_meta') if isinstance(meta, dict) else None
    return {} if data is None else dict(dataset_meta=json.loads(mmengine.dump(data, file_format='json')))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        check_checkpoint(args.src)
        target = Path(args.dst).expanduser()
        if target.exists() and not args.overwrite:
            raise UsageError(f'{target} exists already: choose another name or give --overwrite')
        with trust_checkpoints(args.trust_checkpoint):
            published = read_checkpoint(args.src, map_location='cpu')
        with as_usage_error(ValueError, place=args.src):
            converted = plain_weights(published) if args.plain else convert_published_state_dict(published)
            lines = [f'{len(converted)} tensors'] if args.plain else report(converted)
        print('\n'.join(lines))
        target.parent.mkdir(parents=True, exist_ok=True)
        # A file of that name is always a whole one.
        with unfinished(target) as temporary:
            write = save_safetensors if target.suffix == SAFETENSORS else torch.save
            write(dict(meta=plain_meta(published), state_dict=converted), temporary)
            temporary.replace(target)
        print(f'written: {target}')
