"""Evaluate a checkpoint in any of the toolboxes: ``tools/test.py``."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process

from ..apis.testing import OUTPUTS, add_reports, report_of, write_reports
from ..console import console, print_table
from ..engine.augmented_test import augment_test
from ..engine.check_settings import check_settings
from ..engine.class_names import check_configured_names, class_names
from ..engine.mixed_precision import autocast_tests
from ..engine.running import build_runner, check_data, draw_predictions
from ..engine.strategy import drop_strategy, has_strategy
from ..errors import UsageError, one_line_errors
from ..io.checkpoints import trust_checkpoints
from ..io.files import write_json
from ..measure.timing import DTYPES
from .arguments import add_run_arguments, add_shared, find_arguments, output_file, reduced
from .common import add_common_arguments, load_config
from .tables import figures_of_classes


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description='Evaluate a checkpoint; the toolbox (mmpretrain, mmdet, mmseg, mmaction2) is chosen by the config.',
        epilog='example: python tools/test.py configs/stvit/stvit-s_8xb128_in1k.py https://.../stvit-s.pth',
    )
    add_run_arguments(parser)
    parser.add_argument(
        '--out',
        action='append',
        default=[],
        metavar='FILE',
        help='write the metrics to FILE.json, the figures of each class to FILE.csv, or the predictions to FILE.jsonl '
        '(a line for each file, as of `mmstvit infer`) or FILE.pkl; may be given several times',
    )
    parser.add_argument(
        '--per-class',
        action='store_true',
        help='precision, recall, F1 and support of each class; the AP of detectors; the IoU too of segmentors',
    )
    parser.add_argument(
        '--confusion-matrix',
        action='store_true',
        help="of images or pixels, a picture and CSV, in the log's folder",
    )
    parser.add_argument('--show-dir', help='draw the predictions into this folder')
    parser.add_argument('--interval', type=int, default=1, help='with --show-dir: draw every n-th sample')
    parser.add_argument(
        '--tta', action='store_true', help='average augmented views: by tta_model and tta_pipeline, or flips'
    )
    add_shared(parser, '--dtype', '--reduce')
    add_common_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    find_arguments(args)
    return args


def merge_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Write the command's arguments into the config.

    Raises:
        UsageError: an argument cannot take effect.
    """
    for key in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        if cfg.get(key) is None:
            raise UsageError(f'{args.config} has no {key}: it cannot be tested')
    cfg.load_from, cfg.resume = args.checkpoint, False
    drop_strategy(cfg)
    if has_strategy(cfg) and (args.reduce is not None or args.dtype != 'float32'):
        raise UsageError('--dtype and --reduce do not work with a strategy: leave it out, or test in one process')
    for out in args.out:
        output_file(out, '--out', OUTPUTS)
    args.per_class = args.per_class or any(out.endswith('.csv') for out in args.out)
    add_reports(cfg, args.out, args.per_class, args.confusion_matrix)
    if args.tta:
        augment_test(cfg)
    if args.show_dir is not None:
        draw_predictions(cfg, args.show_dir, args.interval)
    return cfg


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors(), ExitStack() as stack:
        args = parse_args(argv)
        stack.enter_context(trust_checkpoints(args.trust_checkpoint))
        cfg = merge_args(load_config(args), args)
        check_settings(cfg, ('test_dataloader',))
        check_configured_names(cfg, ('train_dataloader', 'test_dataloader'))
        check_data(cfg, ('test_dataloader',))
        runner = build_runner(cfg, args.trust_data)
        reduced(runner.model, args.reduce)
        autocast_tests(runner.model, DTYPES[args.dtype])
        metrics = runner.test()
        if not is_main_process():
            return
        for out in args.out:
            if out.endswith('.json'):
                write_json(out, metrics)
        if args.per_class or args.confusion_matrix:
            rows, matrix = report_of(cfg, metrics, class_names(runner.test_dataloader.dataset))
            print_table(console(), figures_of_classes(rows))
            matrix = matrix if args.confusion_matrix else None
            tables = [out for out in args.out if out.endswith('.csv')]
            written = write_reports(rows, matrix, Path(runner.log_dir), tables)
            print(*(f'{what}: {path}' for what, path in written), sep='\n')
