"""Weights of finished runs in half precision, small enough to be handed on: ``python -m projects.evidence.weights``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from mmstvit.errors import UsageError, one_line_errors
from mmstvit.io.checkpoints import load

from .store import read_json


def write_weights(result: dict, checkpoint: Path, out: Path) -> None:
    """Write the weights of a run as float16, without optimizer, beside what they are of.

    Args:
        result: of the run.
        checkpoint: that it has left.
        out: the file.
    """
    whole = load(checkpoint)
    half = {name: value.half() if value.is_floating_point() else value for name, value in whole['state_dict'].items()}
    meta = {key: result[key] for key in ('name', 'config', 'seed', 'epochs', 'metrics', 'commit')}
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(meta=whole['meta'] | meta, state_dict=half), out)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description='Write the weights of finished runs in half precision.')
    parser.add_argument('work_dir', type=Path, help='of python -m projects.evidence')
    parser.add_argument('out', type=Path, help='the folder for NAME.pth')
    parser.add_argument('--only', default='*', metavar='PATTERN', help='of the names of runs; default all')
    args = parser.parse_args(argv)
    with one_line_errors():
        results = [read_json(path) for path in sorted((args.work_dir / 'results').glob(f'{args.only}.json'))]
        if not results:
            raise UsageError(f'no finished run in {args.work_dir} is called {args.only}')
        for result in results:
            (checkpoint,) = (args.work_dir / 'runs' / result['name']).glob('*.pth')
            path = args.out / f'{result["name"]}.pth'
            write_weights(result, checkpoint, path)
            print(f'{path}: {path.stat().st_size / 2**20:.1f} MiB')


if __name__ == '__main__':
    main()
