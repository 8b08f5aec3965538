"""Pictures of what semantic tokens stand for: ``tools/visualization/show_tokens.py``."""

import argparse
import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..apis.models import chosen_device, scope_of
from ..apis.results import record, shown
from ..apis.weights import check_checkpoint, load_model
from ..errors import UsageError, one_line, one_line_errors
from ..io.files import write_whole
from ..visualization import TokenMaps, token_maps
from ..visualization.pictures import picture, sheet, write_png
from .common import _Options, add_trust_argument, load_config, output_file

SHEET = 'contact_sheet'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description='Show which region of an image or clip each semantic token stands for. For each input a picture: '
        'what the network sees (after the test pipeline), for each layer of the STGM the token that attends most to '
        'each place, for the recovery of STViT-R the token that is attended to most from there, and the attention of '
        'single tokens over the image; of a clip a strip over time. For several inputs a contact sheet too.',
        epilog='example: mmstvit show-tokens stvit-s_8xb128_in1k s.pth cat.jpg --out maps.npz',
    )
    add_input_arguments(parser, 'tokens')
    parser.add_argument(
        '--tokens', nargs='+', type=int, metavar='N', help='the tokens whose attention is drawn, by number from 0'
    )
    parser.add_argument('--unit', type=int, metavar='N', help='one unit of STViT-R alone, counted from 1')
    parser.add_argument(
        '--view', type=int, default=0, help='which of the clips and crops that the test pipeline takes of a video'
    )
    parser.add_argument(
        '--out', metavar='FILE.npz', help='write the maps there: an array 0/unit1/refine/attention and so on an input'
    )
    return parser.parse_args(argv)


def add_input_arguments(parser: argparse.ArgumentParser, folder: str) -> None:
    """Arguments of commands that draw something of a model for its inputs.

    Args:
        parser: of the command.
        folder: where pictures go by default, below the config's work dir.
    """
    parser.add_argument('config', help='the config file')
    parser.add_argument('checkpoint', help='a checkpoint file or its URL')
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='images, or of a video config clips')
    parser.add_argument(
        '--show-dir', metavar='DIR', help=f'folder for the pictures; default work_dirs/<config name>/{folder}'
    )
    parser.add_argument('--device', help='where to run; default a GPU where there is one')
    parser.add_argument(
        '--cfg-options', nargs='+', action=_Options, default={}, metavar='KEY=VALUE', help='override config settings'
    )
    add_trust_argument(parser)


def prepare(args: argparse.Namespace, folder: str) -> tuple[torch.nn.Module, Path]:
    """The model with its weights, and the folder for the pictures.

    Raises:
        UsageError: an input is not there, or the checkpoint cannot be used.
    """
    for name in args.inputs:
        if not Path(name).is_file():
            raise UsageError(f'there is no file {name}')
    check_checkpoint(args.checkpoint)
    cfg = load_config(argparse.Namespace(**vars(args), launcher='none', work_dir=None, local_rank=0))
    model = load_model(cfg, args.checkpoint, chosen_device(args.device), args.trust_checkpoint)
    show_dir = Path(args.show_dir) if args.show_dir else Path(cfg.work_dir) / folder
    return model, show_dir


def picture_names(inputs: Sequence[str], *taken: str) -> list[str]:
    """A name for the picture of each input, without ending: that of the file, numbered where it would come again."""
    names: list[str] = list(taken)
    for path in inputs:
        stem = name = Path(path).stem
        number = 1
        while name in names:
            number += 1
            name = f'{stem}_{number}'
        names.append(name)
    return names[len(taken) :]


def maps_of(model: torch.nn.Module, name: str, unit: int | None, view: int) -> TokenMaps:
    """The maps of one input.

    Raises:
        UsageError: it cannot be read, or there is not what was asked for.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # mmpretrain's progress bar
            maps = token_maps(model, name, view)
        return maps if unit is None else maps.of_unit(unit)
    except ValueError as error:
        raise UsageError(one_line(error)) from error


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        output_file(args.out, '--out', ('.npz',))
        model, show_dir = prepare(args, 'tokens')
        scope = scope_of(model)
        names = picture_names(args.inputs, SHEET)
        all_maps, titles, arrays = [], [], {'inputs': np.array(args.inputs)}
        for number, (path, name) in enumerate(zip(args.inputs, names)):
            maps = maps_of(model, path, args.unit, args.view)
            # Of a detector nothing: what it found would fill the title.
            said = '' if scope == 'mmdet' else shown(record(maps.result, scope, model))
            try:
                image = picture(maps, args.tokens, f'{Path(path).name}   {said}'.strip())
            except ValueError as error:
                raise UsageError(f'--tokens: {one_line(error)}') from error
            write_png(show_dir / f'{name}.png', image)
            print(f'tokens:        {show_dir / name}.png')
            all_maps.append(maps)
            titles.append(said or name)
            arrays.update({f'{number}/{key}': value for key, value in maps.arrays().items()})
        if len(all_maps) > 1:
            write_png(show_dir / f'{SHEET}.png', sheet(all_maps, titles))
            print(f'contact sheet: {show_dir / SHEET}.png')
        if args.out:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)
            write_whole(Path(args.out), buffer.getvalue())
            print(f'maps:          {args.out}')
