"""Rename a published checkpoint to the names of mmstvit: ``tools/model_converters/published_to_mmstvit.py``."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.registry import init_default_scope
from torch import Tensor

from ..apis.weights import check_checkpoint, read_checkpoint
from ..converters.deit import join_tokens
from ..converters.fit import some
from ..converters.published import convert_published_state_dict
from ..converters.recognise import backbone_of
from ..errors import UsageError, one_line_errors
from ..io.checkpoints import SAFETENSORS, save_safetensors, trust_checkpoints
from ..io.files import unfinished
from ..registry import MODELS
from .arguments import add_trust_argument


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='Write a published checkpoint of DeiT, ViT, DINOv2, Swin, STViT-R or T2T-ViT in the names of '
        'mmstvit. The layout is recognised by its names. Published files load unconverted too; this is for those who '
        'want to look at them, cut them or hand them on.',
        epilog='example: mmstvit convert stvit-r-swin-s.pth renamed.safetensors',
    )
    parser.add_argument('src', metavar='SRC', help='the published file or its URL')
    parser.add_argument('dst', metavar='DST', help='the file to write; *.safetensors is written as that')
    parser.add_argument('--overwrite', action='store_true', help='replace DST where it exists')
    add_trust_argument(parser)
    return parser.parse_args(argv)


def report(converted: dict[str, Tensor]) -> list[str]:
    """Report how a converted file fits its backbone, in lines.

    Raises:
        ValueError: tensors that tell the backbone's size are missing.
    """
    config = backbone_of(converted)
    init_default_scope('mmstvit')
    with torch.device('meta'):
        own = MODELS.build(config).state_dict()
    if config.get('num_register_tokens'):
        converted = dict(converted)
        join_tokens(converted)
    theirs = {name.removeprefix('backbone.'): v for name, v in converted.items() if name.startswith('backbone.')}
    matched = [name for name, value in own.items() if name in theirs and theirs[name].shape == value.shape]
    other = Counter(name.split('.')[0] for name in converted if not name.startswith('backbone.'))
    options = ', '.join(f'{key}={value!r}' for key, value in config.items() if key != 'type')
    lines = [f'{config["type"]}({options})', f'matched: {len(matched)} of {len(own)} tensors of the backbone']
    for title, names in (
        ('missing', [name for name in own if name not in theirs]),
        ('of another shape', [name for name in own if name in theirs and name not in matched]),
        ('unexpected', [name for name in theirs if name not in own]),
    ):
        lines.append(f'{title}: {some(names, 20) if names else "none"}')
    if other:
        lines.append('beside the backbone: ' + ', '.join(f'{part} ({n} tensors)' for part, n in other.items()))
    return lines


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
        try:
            converted = convert_published_state_dict(published)
            lines = report(converted)
        except ValueError as error:
            raise UsageError(f'{args.src}: {error}') from error
        print('\n'.join(lines))
        target.parent.mkdir(parents=True, exist_ok=True)
        meta = published.get('meta')
        known = {key: meta[key] for key in ('dataset_meta',) if key in meta} if isinstance(meta, dict) else {}
        # A file of that name is always a whole one.
        with unfinished(target) as temporary:
            write = save_safetensors if target.suffix == SAFETENSORS else torch.save
            write(dict(meta=known, state_dict=converted), temporary)
            temporary.replace(target)
        print(f'written: {target}')
