"""Train a model of any of the toolboxes: ``tools/train.py``."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext

import torch
from mmengine.config import Config

from ..apis.weights import check_checkpoint
from ..engine.check_settings import check_settings
from ..engine.checks import check_optimizer, check_training
from ..engine.progress import one_line_an_epoch
from ..engine.running import add_curves, build_runner, check_data
from ..engine.stops import clear_stops, finished_training, guard_training, newest_checkpoint
from ..engine.videos import skip_broken_clips
from ..errors import UsageError, one_line_errors
from ..io.checkpoints import trust_checkpoints
from .common import add_common_arguments, load_config
from .own_data import add_own_data_arguments, choose_own_data, with_own_data_options


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description='Train a model; the toolbox (mmpretrain, mmdet, mmseg, mmaction2) is chosen by the config.',
        epilog='example: python tools/train.py configs/digits/stvit-tiny_digits.py --work-dir work_dirs/digits',
    )
    parser.add_argument('config', help='the config file, or a name of mmstvit list')
    add_own_data_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint, without a name from the newest whole one in the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (needs a GPU)')
    parser.add_argument('--no-validate', action='store_true', help='no validation during training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by the real batch size over the config's auto_scale_lr.base_batch_size",
    )
    parser.add_argument(
        '--skip-broken',
        action='store_true',
        help='in mmaction2: train on, without clips that are not there or cannot be read, and count them at the end',
    )
    parser.add_argument(
        '--quiet', action='store_true', help='print one line an epoch; the log file in the work dir has everything'
    )
    parser.add_argument('--tensorboard', action='store_true', help='write curves and pictures for TensorBoard too')
    parser.add_argument(
        '--wandb', nargs='?', const='', metavar='PROJECT', help='send curves and pictures to Weights & Biases too'
    )
    add_common_arguments(parser)
    return with_own_data_options(parser.parse_args(argv))


def merge_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Write the command's arguments into the config.

    Raises:
        UsageError: an argument cannot take effect.
    """
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        if not cfg.get(key):
            raise UsageError(f'{args.config} has no {key}: it cannot train')
    check_optimizer(cfg)
    add_curves(cfg, args.tensorboard, args.wandb)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        if not torch.cuda.is_available():
            raise UsageError('--amp needs a GPU and none is visible: leave it out')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    _choose_start(cfg, args.resume)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UsageError('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config')
        cfg.auto_scale_lr.enable = True
    return cfg


def _choose_start(cfg: Config, resume: str | None) -> None:
    """Say where training starts: a checkpoint to resume, one to begin from, or none."""
    if resume == 'auto' or (resume is None and cfg.get('resume') and not cfg.get('load_from')):
        resume = newest_checkpoint(cfg)
        if resume is None:
            # So that the same command starts a job and takes it up again.
            print(f'No checkpoint in {cfg.work_dir} to resume: training starts from the beginning.')
    if resume:
        cfg.resume, cfg.load_from = True, resume
    check_checkpoint(cfg.get('load_from'))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors(), ExitStack() as stack:
        args = parse_args(argv)
        stack.enter_context(trust_checkpoints(args.trust_checkpoint))
        choose_own_data(args)
        cfg = merge_args(load_config(args), args)
        check_settings(cfg, ('train_dataloader', 'val_dataloader'))
        if finished := finished_training(cfg):
            print(finished)
            return
        check_training(cfg)
        check_data(cfg, ('train_dataloader', 'val_dataloader'))
        if args.skip_broken:
            skip_broken_clips(cfg)
        guard_training(cfg)
        runner = build_runner(cfg, args.trust_data)
        with clear_stops(runner), one_line_an_epoch(runner) if args.quiet else nullcontext():
            runner.train()
