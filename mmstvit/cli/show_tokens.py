"""Pictures of what semantic tokens stand for: ``tools/visualization/show_tokens.py``."""

import argparse
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..apis.files import IMAGES, VIDEOS, find_inputs
from ..apis.models import get_model, scope_of
from ..apis.results import as_line, record
from ..errors import UsageError, as_usage_error, one_line_errors
from ..io.files import write_whole
from ..io.outputs import places_below, refuse_overwriting
from ..paths import is_address
from ..visualization import TokenMaps, has_semantic_tokens, token_maps
from ..visualization.groups import TokenGroups, groups_picture, groups_sheet, token_groups
from ..visualization.pictures import ALPHA, picture, sheet, write_png
from .arguments import add_picture_arguments, add_shared, find_arguments, output_file, reduced
from .common import read_config

_SHEET = 'contact_sheet.png'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='Show which region of an image or clip each token stands for: what the network sees, for each '
        'layer of the STGM the token that attends most to each place, for the recovery of STViT-R the one that is '
        'attended to most from there, and the attention of single tokens; of a model that merges or drops tokens the '
        'groups; of a clip a strip over time. For several inputs a contact sheet too.',
        epilog='example: mmstvit show-tokens stvit-s_8xb128_in1k s.pth cat.jpg --out maps.npz',
    )
    add_picture_arguments(parser, 'tokens')
    add_shared(parser, '--reduce')
    parser.add_argument(
        '--tokens', nargs='+', type=int, metavar='N', help='the tokens whose attention is drawn, by number from 0'
    )
    parser.add_argument(
        '--alpha', type=float, default=ALPHA, help='share of the colours over the image, 0 to 1; default %(default)s'
    )
    parser.add_argument('--unit', type=int, metavar='N', help='one unit of STViT-R alone, counted from 1')
    parser.add_argument(
        '--view', type=int, default=0, help='which of the clips and crops that the test pipeline takes of a video'
    )
    parser.add_argument(
        '--out', metavar='FILE.npz', help='write the maps there: an array 0/unit1/refine/attention and so on an input'
    )
    return parser.parse_intermixed_args(argv)


def load_model(args: argparse.Namespace, folder: str) -> tuple[torch.nn.Module, list[Path]]:
    """Load the model with its weights, once all inputs are there, and name the files of the pictures.

    Returns:
        The model, and the files: of each input one, and the contact sheet last.

    Raises:
        UsageError: there are no inputs, or a picture would be written over one.
    """
    second = args.checkpoint or ''
    weights = is_address(second) or Path(second).suffix in ('.pth', '.pt', '.bin', '.ckpt', '.safetensors', '.tar')
    if Path(args.config).is_dir() and second and not weights:
        args.checkpoint, args.inputs = None, [second, *args.inputs]  # a work dir and the first input
    find_arguments(args)
    cfg = read_config(args.config, args.cfg_options)
    if not args.inputs:
        raise UsageError('give images, clips or folders of them')
    endings = VIDEOS if cfg.default_scope == 'mmaction' else IMAGES
    args.inputs = [str(path) for path in find_inputs(args.inputs, endings)]
    show_dir = Path(args.show_dir) if args.show_dir else Path(cfg.work_dir) / folder
    pictures = [Path(f'{place}.png') for place in places_below(show_dir, args.inputs)]
    pictures.append(show_dir / _SHEET)
    written = pictures if len(args.inputs) > 1 else pictures[:1]
    refuse_overwriting(written, args.inputs, 'give another folder with --show-dir')
    return get_model(cfg, args.checkpoint, args.device, args.trust_checkpoint), pictures


def tokens_of(model: torch.nn.Module, args: argparse.Namespace, name: str) -> TokenMaps | TokenGroups:
    """Compute the token maps of one input, or the groups where the model has no semantic tokens."""
    with as_usage_error(ValueError):
        if not has_semantic_tokens(model):
            return token_groups(model, name, args.view)
        maps = token_maps(model, name, args.view)
        return maps if args.unit is None else maps.of_unit(args.unit)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        if not 0 <= args.alpha <= 1:
            raise UsageError(f'--alpha {args.alpha}: it is from 0 to 1')
        output_file(args.out, '--out', ('.npz',))
        model, (*pictures, sheet_file) = load_model(args, 'tokens')
        model = reduced(model, args.reduce)
        draw: Any = partial(picture, tokens=args.tokens, alpha=args.alpha)
        draw_sheet: Any = partial(sheet, alpha=args.alpha)
        if not has_semantic_tokens(model):
            draw, draw_sheet = groups_picture, groups_sheet
            if args.tokens or args.unit or args.alpha != ALPHA:
                raise UsageError('--tokens, --unit and --alpha are for semantic tokens, and this model has none')
        scope = scope_of(model)
        all_maps, titles = [], []
        arrays: dict[str, Any] = {'inputs': np.array(args.inputs)}
        for number, (path, file) in enumerate(zip(args.inputs, pictures)):
            maps = tokens_of(model, args, path)
            # A detector's objects would fill it.
            title = '' if scope == 'mmdet' else as_line(record(maps.result, scope, model))
            with as_usage_error(ValueError, place='--tokens'):
                image = draw(maps, title=f'{Path(path).name}   {title}'.strip())
            write_png(file, image)
            print(f'tokens:        {file}')
            all_maps.append(maps)
            titles.append(title or Path(path).name)
            arrays.update({f'{number}/{key}': value for key, value in maps.arrays().items()})
        if len(all_maps) > 1:
            write_png(sheet_file, draw_sheet(all_maps, titles))
            print(f'contact sheet: {sheet_file}')
        if args.out:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)
            write_whole(Path(args.out), buffer.getvalue())
            print(f'maps:          {args.out}')
