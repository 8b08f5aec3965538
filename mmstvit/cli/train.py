"""Train a model of any of the three toolboxes: ``tools/train.py``."""

import argparse
from collections.abc import Sequence

import torch
from mmengine.config import Config

from .common import (
    UsageError,
    add_common_arguments,
    build_runner,
    check_checkpoint,
    check_data,
    load_config,
    one_line_errors,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog='train.py',
        description='Train a model; the toolbox (mmpretrain, mmdet, mmaction2) is chosen by the config.',
        epilog='example: python tools/train.py configs/digits/stvit-tiny_digits.py --work-dir work_dirs/digits',
    )
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint, without a name from the last one in the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (needs a GPU)')
    parser.add_argument('--no-validate', action='store_true', help='no validation during training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by the real batch size over the config's auto_scale_lr.base_batch_size",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def merge_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Write the command's arguments into the config.

    Raises:
        UsageError: an argument cannot take effect.
    """
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        if not torch.cuda.is_available():
            raise UsageError('--amp needs a GPU and none is visible: leave it out')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume == 'auto':
        cfg.resume, cfg.load_from = True, None
    elif args.resume:
        check_checkpoint(args.resume)
        cfg.resume, cfg.load_from = True, args.resume
    else:
        check_checkpoint(cfg.get('load_from'))
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UsageError('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config')
        cfg.auto_scale_lr.enable = True
    return cfg


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(argv)
    with one_line_errors():
        cfg = merge_args(load_config(args), args)
        check_data(cfg, ('train_dataloader', 'val_dataloader'))
        build_runner(cfg).train()
