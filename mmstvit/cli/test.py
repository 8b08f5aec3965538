"""Evaluate a checkpoint in any of the three toolboxes: ``tools/test.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import mmengine
from mmengine.config import Config, ConfigDict

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
        prog='test.py',
        description='Evaluate a checkpoint; the toolbox (mmpretrain, mmdet, mmaction2) is chosen by the config.',
        epilog='example: python tools/test.py configs/stvit/stvit-s_8xb128_in1k.py https://.../stvit-s.pth',
    )
    parser.add_argument('config', help='the config file')
    parser.add_argument('checkpoint', help='a checkpoint file or its URL')
    parser.add_argument('--out', help='write the metrics to FILE.json, or the predictions to FILE.pkl')
    parser.add_argument('--show-dir', help='draw the predictions into this folder')
    parser.add_argument('--interval', type=int, default=1, help='with --show-dir: draw every n-th sample')
    add_common_arguments(parser)
    return parser.parse_args(argv)


def merge_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Write the command's arguments into the config.

    Raises:
        UsageError: an argument cannot take effect.
    """
    check_checkpoint(args.checkpoint)
    cfg.load_from = args.checkpoint
    if args.out is not None:
        out = Path(args.out)
        if out.suffix not in ('.json', '.pkl'):
            raise UsageError(f'--out {args.out}: name it *.json for the metrics or *.pkl for the predictions')
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == '.pkl':
            _add_dump(cfg, str(out))
    if args.show_dir is not None:
        _draw(cfg, args.show_dir, args.interval)
    return cfg


def _add_dump(cfg: Config, path: str) -> None:
    # mmdet's own packs masks as RLE; the others use mmengine's.
    kind = 'mmdet.DumpDetResults' if cfg.default_scope == 'mmdet' else 'mmengine.DumpResults'
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
    cfg.test_evaluator = [*evaluators, ConfigDict(type=kind, out_file_path=path)]


def _draw(cfg: Config, folder: str, interval: int) -> None:
    hook = cfg.default_hooks.setdefault('visualization', ConfigDict())
    hook.setdefault('type', 'DetVisualizationHook' if cfg.default_scope == 'mmdet' else 'VisualizationHook')
    hook.interval = interval
    if cfg.default_scope == 'mmdet':
        hook.draw, hook.test_out_dir = True, folder
    else:
        hook.enable, hook.out_dir = True, folder


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(argv)
    with one_line_errors():
        cfg = merge_args(load_config(args), args)
        check_data(cfg, ('test_dataloader',))
        metrics = build_runner(cfg).test()
        if args.out is not None and args.out.endswith('.json'):
            mmengine.dump(metrics, args.out)
