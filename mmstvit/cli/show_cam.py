"""Pictures of what speaks for a class: ``tools/visualization/show_cam.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..apis.models import classes_of
from ..errors import UsageError, as_usage_error, one_line_errors, suggest
from ..visualization.class_activation import METHODS, activation_sheet, class_activation
from ..visualization.pictures import write_png
from .arguments import add_picture_arguments
from .show_tokens import load_model


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='Show which parts of an image speak for a class, in image classifiers with semantic tokens: class '
        'activation of the package grad-cam, spread over the image by the attention of the semantic tokens. For other '
        'networks mmpretrain has vis_cam.py. For several images a contact sheet too.',
        epilog='example: mmstvit show-cam stvit-s_8xb128_in1k s.pth cat.jpg --target tabby',
    )
    add_picture_arguments(parser, 'cam')
    parser.add_argument('--target', metavar='CLASS', help='number or name of the class; default the predicted one')
    parser.add_argument('--method', default='GradCAM', choices=METHODS, help='of grad-cam; default GradCAM')
    return parser.parse_intermixed_args(argv)


def number_of(target: str | None, classes: Sequence[str] | None) -> int | None:
    """Return the number of a class, from its number or name.

    Raises:
        UsageError: there is no class of that name.
    """
    names = list(classes or ())
    if target is None or target in names:
        return None if target is None else names.index(target)
    try:
        return int(target)
    except ValueError:
        raise UsageError(f'--target {target}: there is no such class{suggest(target, names)}') from None


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        model, (*pictures, sheet_file) = load_model(args, 'cam')
        classes = classes_of(model)
        target = number_of(args.target, classes)
        activations, titles = [], []
        for path, file in zip(args.inputs, pictures):
            with as_usage_error(ValueError, ImportError):
                one = class_activation(model, path, target, args.method)
            what = classes[one.target] if classes else f'class {one.target}'
            titles.append(f'{Path(path).name}: for {what}  {float(one.result["pred_scores"][one.target]):.0%}')
            activations.append(one)
            write_png(file, activation_sheet([one], titles[-1:]))
            print(f'class activation: {file}')
        if len(activations) > 1:
            write_png(sheet_file, activation_sheet(activations, titles))
            print(f'contact sheet:    {sheet_file}')
