"""Accuracy with fewer tokens, untrained and recovered: ``python -m projects.evidence.recovery``, see ``--help``."""

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmstvit.apis.models import chosen_device, read_valid_config
from mmstvit.cli.arguments import add_shared
from mmstvit.engine.datasets import innermost
from mmstvit.errors import UsageError, one_line_errors
from mmstvit.registry import entries_of, type_name

from .__main__ import say
from .plan import Run
from .recovery_measure import BUDGETS, Measured
from .recovery_report import write_page
from .runs import Crew
from .store import exclusive, read_json, write_json

ELASTIC = 'elastic'
_PLACES = ('teachers', 'stvit_scratch', 'cfg_options', 'data_root', 'out', 'page', 'page_only', 'jobs', 'workers')


@dataclass(frozen=True)
class Recovery(Run):
    """One recovery; ``config`` is the path of its own config without ``.py``."""

    @property
    def name(self) -> str:
        return Path(self.config).name

    @property
    def overrides(self) -> dict[str, Any]:
        return {}  # all is in its config

    @property
    def minutes(self) -> float:
        return 1.0  # the finished ones tell more


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description='Reduce the tokens of trained dense classifiers, measure accuracy and time of each method, train '
        'some back by distillation, and write a page. What is finished is not repeated: the same command goes on.'
    )
    parser.add_argument('--config', default='configs/cifar10/deit-t_cifar10.py', help='of the dense one, %(default)s')
    parser.add_argument('--teachers', nargs='+', default=[], metavar='CHECKPOINT', help='of the dense one, by seed')
    parser.add_argument('--stvit-config', metavar='CONFIG', help='of the STViT that is distilled from the dense one')
    parser.add_argument('--stvit-scratch', nargs='+', default=[], metavar='CHECKPOINT', help='of it, without a teacher')
    parser.add_argument('--data-root', help="in the place of the configs' own")
    parser.add_argument('--out', type=Path, default=Path('work_dirs/recovery'), help='default %(default)s')
    parser.add_argument('--epochs', type=int, default=8, help='of each recovery, default %(default)s')
    parser.add_argument('--dense-epochs', type=int, help="of the dense training, by default the config's, for the page")
    parser.add_argument('--lr-factor', type=float, default=0.2, help='on the dense learning rate, default %(default)s')
    parser.add_argument('--recover', nargs='*', default=['ToMe'], metavar='METHOD', help='default ToMe')
    parser.add_argument('--separate', nargs='*', type=float, default=[0.7, 0.5, 0.35], help='budgets of their own runs')
    parser.add_argument('--elastic', nargs=2, type=float, default=[0.35, 1.0], help='bounds of the drawn budgets')
    parser.add_argument('--token-weight', type=float, default=0.5, help='of the error of tokens, default %(default)s')
    parser.add_argument('--jobs', type=int, default=1, help='trainings side by side')
    parser.add_argument('--workers', type=int, help="loading processes of each training, by default the config's")
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=[256], help='that are timed, default 256')
    parser.add_argument('--rounds', type=int, default=5, help='of the timing')
    parser.add_argument('--no-times', action='store_true', help='time nothing, as on a busy machine')
    parser.add_argument('--no-training', action='store_true', help='measure what is there')
    parser.add_argument('--most-images', type=int, default=100_000, help='test images, for a trial')
    parser.add_argument('--page', type=Path, help='write it, *.md; a JSON file and plots go beside it')
    parser.add_argument('--page-only', action='store_true', help='measure nothing: from the JSON file beside the page')
    add_shared(parser, '--cfg-options', '--dtype')
    return parser.parse_args(argv)


def read_config(path: str, args: argparse.Namespace) -> Config:
    """Read a config with the command's data and workers.

    Raises:
        UsageError: it is none.
    """
    cfg = read_valid_config(Path(path))
    cfg.merge_from_dict(args.cfg_options)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if args.workers is not None:
            cfg[name].num_workers, cfg[name].persistent_workers = args.workers, args.workers > 0
        for _, dataset in innermost(cfg[name].dataset, name) if args.data_root else ():
            dataset.data_root = args.data_root
    return cfg


def recovery_config(cfg: Config, args: argparse.Namespace, teacher: str, seed: int, **model: Any) -> Config:
    """Make the config of a recovery from that of a training.

    Args:
        cfg: it is not changed.
        args: of the command.
        teacher: the dense network's checkpoint, where the student begins too.
        seed: of the training and of the budgets.
        **model: settings of :class:`.DistilledClassifier`.
    """
    cfg = copy.deepcopy(cfg)
    cfg.model.update(
        type='mmstvit.DistilledClassifier', teacher_ckpt=teacher, token_weight=args.token_weight, seed=seed
    )
    for name, value in model.items():  # update() would merge a backbone with the one that is there
        cfg.model[name] = value
    cfg.model.pop('init_cfg', None)
    cfg.model.backbone.pop('init_cfg', None)
    cfg.load_from, cfg.randomness = teacher, dict(seed=seed)
    cfg.optim_wrapper.optimizer.lr *= args.lr_factor
    cfg.param_scheduler = [ConfigDict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, convert_to_iter_based=True)]
    cfg.train_cfg = ConfigDict(by_epoch=True, max_epochs=args.epochs)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None  # the test at the end is all that is needed
    # An average over a longer training would stay at the teacher's weights.
    cfg.custom_hooks = [hook for hook in entries_of(cfg.get('custom_hooks')) if type_name(hook) != 'EMAHook']
    cfg.setdefault('default_hooks', ConfigDict()).setdefault('checkpoint', ConfigDict(type='CheckpointHook'))
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1)
    cfg.pop('compile', None)  # each budget has a graph of its own
    return cfg


def plan(args: argparse.Namespace, dense: Config, folder: Path) -> dict[str, Recovery]:
    """Write the configs of all recoveries; returns the runs by name, the most wanted first."""
    runs, dense_path = {}, str((folder / 'dense.py').absolute())

    def add(name: str, cfg: Config, teacher: str, seed: int, **model: Any) -> None:
        path = folder / f'{name}_{seed}.py'
        recovery_config(cfg, args, teacher, seed, **model).dump(path)
        runs[path.stem] = Recovery(str(path.absolute().with_suffix('')), seed)

    def reduced(method: str, budget: float) -> dict:
        return dict(type='mmstvit.Reduced', backbone=dense.model.backbone, reduce=dict(type=method, budget=budget))

    teachers = [str(Path(teacher).absolute()) for teacher in args.teachers]
    for method in args.recover:
        for seed, teacher in enumerate(teachers):
            model = dict(backbone=reduced(method, 0.5), budget=tuple(args.elastic))
            add(f'{method}_{ELASTIC}', dense, teacher, seed, **model)
        if args.stvit_config and method == args.recover[0]:
            for seed, teacher in enumerate(teachers):
                add('STViT', read_config(args.stvit_config, args), teacher, seed, teacher_config=dense_path)
        for budget in args.separate:
            for seed, teacher in enumerate(teachers):
                add(f'{method}_{budget}', dense, teacher, seed, backbone=reduced(method, budget))
    return runs


def command_of(args: argparse.Namespace) -> str:
    """Write the command that gives these figures, but for where checkpoints and results are and what runs beside."""
    words, usual = ['python -m projects.evidence.recovery'], vars(parse_args([]))
    for name, value in vars(args).items():
        if value != usual[name] and name not in _PLACES:
            values = value if isinstance(value, list) else [value]
            words += [f'--{name.replace("_", "-")}', *([] if value is True else map(str, values))]
    return ' '.join(words)


def measure(args: argparse.Namespace, report: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, str]]:
    """Do all that has not been done; returns the results, and what went wrong by the run's name."""
    dense, folder = read_config(args.config, args), args.out / 'configs'
    folder.mkdir(parents=True, exist_ok=True)
    dense.dump(folder / 'dense.py')
    device = chosen_device(None)
    measured = Measured(args.out / 'recovery.json', folder / 'dense.py', device, args.most_images, report)
    measured.note(
        network=Path(args.config).stem,
        epochs=args.epochs,
        dense_epochs=args.dense_epochs or dense.train_cfg.get('max_epochs'),
        elastic=args.elastic,
        settings={name: getattr(args, name) for name in ('lr_factor', 'token_weight', 'separate')},
        command=command_of(args),
    )
    for seed, teacher in enumerate(args.teachers):
        measured.untrained(seed, teacher)
    if not args.no_times:
        measured.times(args.teachers[0], args.batch_sizes, args.dtype, args.rounds)
    runs, failures = plan(args, dense, folder), {}
    if not args.no_training:
        try:
            with exclusive(args.out) as lock:
                failures = Crew(args.out, args.jobs, report, lock).carry_out(list(runs.values()))
        except KeyboardInterrupt:
            failures = {'trainings': 'interrupted, the same command goes on; what is finished is measured now'}
    for name, run in runs.items():
        files = sorted((args.out / 'runs' / name).glob('epoch_*.pth'), key=lambda path: path.stat().st_mtime)
        if not (args.out / 'results' / f'{name}.json').is_file() or not files:
            continue
        if name.startswith('STViT_'):
            measured.whole('distilled', run.seed, f'{run.config}.py', files[-1])
            continue
        method, kind = name.split('_')[:2]
        measured.recovered(method, kind, run.seed, files[-1], BUDGETS if kind == ELASTIC else [float(kind)])
    if args.stvit_config:
        read_config(args.stvit_config, args).dump(folder / 'stvit.py')
        for seed, checkpoint in enumerate(args.stvit_scratch):
            measured.whole('scratch', seed, folder / 'stvit.py', Path(checkpoint))
    return measured.data, failures


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    with one_line_errors():
        args = parse_args(argv)
        if not (args.teachers or args.page_only):
            raise UsageError('--teachers must name the checkpoints of the dense network')
        if args.page and args.page.suffix != '.md':
            raise UsageError(f'--page {args.page}: name it *.md')
        failures = {}
        if args.page_only:
            results = read_json(args.page.with_suffix('.json')) if args.page else None
            if results is None:
                raise UsageError('--page-only needs --page FILE.md with a JSON file beside it')
        else:
            results, failures = measure(args, say)
        if args.page:
            write_json(args.page.with_suffix('.json'), results)
            write_page(results, args.page)
            say(f'written: {args.page}')
        for name, why in failures.items():
            print(f'FAILED {name}: {why}', file=sys.stderr)
        return 1 if failures else 0
    return 2


if __name__ == '__main__':
    sys.exit(main())
