#!/usr/bin/env python3
"""Install the wheel beside several Pythons and PyTorch releases, and try it there: ``make test-matrix``.

Only Pythons that are on this machine take part, those of pyenv too; the others are named. Each environment is removed
before the next one is made. uv's own settings hold, e.g. UV_TORCH_BACKEND=cpu for PyTorch without CUDA.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ('3.10', '3.11', '3.12', '3.13')
# The oldest PyTorch that setup.py allows, and whatever is newest.
TORCHES = {'2.6': ('torch==2.6.*', 'torchvision==0.21.*'), 'newest': ('torch', 'torchvision')}
SMOKE = """
import torch, torchvision, mmstvit
network = mmstvit.create_model('stvit_tiny', num_classes=10).eval()
assert network(torch.rand(2, 3, 64, 64)).shape == (2, 10)
model = mmstvit.get_model('stvit-tiny_digits')  # of mmpretrain
assert model(torch.rand(2, 3, 32, 32), mode='tensor').shape == (2, 10)
print('torch', torch.__version__)
"""
TRIALS = (('-m', 'mmstvit', '--version'), ('-m', 'mmstvit', 'list', 'stvit-s*'), ('-c', SMOKE))

Run = Callable[[Sequence[str]], tuple[int, str]]


def run_command(command: Sequence[str]) -> tuple[int, str]:
    """Run a command away from the checkout; return its exit code and all that it printed."""
    env = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV')}
    pyenv = Path(env.get('PYENV_ROOT') or Path.home() / '.pyenv')
    env['PATH'] = os.pathsep.join([*map(str, sorted(pyenv.glob('versions/*/bin'))), env.get('PATH', '')])
    env['UV_PYTHON_DOWNLOADS'] = 'never'
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tempfile.gettempdir(), env=env
    )
    return result.returncode, result.stdout


def build_wheel(uv: str, folder: Path, run: Run) -> Path:
    """Build the wheel from a source archive, so that nothing of an earlier build gets into it."""
    code, output = run([uv, 'build', '--quiet', '--out-dir', str(folder), str(ROOT)])
    wheels = sorted(folder.glob('mmstvit-*.whl'))
    if code or not wheels:
        sys.exit(f'the wheel could not be built:\n{output}')
    return wheels[0]


def try_one(uv: str, python: str, torch: Sequence[str], wheel: Path, folder: Path, run: Run) -> str:
    """Install and try the wheel in a new environment.

    Args:
        uv: its program.
        python: the interpreter.
        torch: requirements of PyTorch.
        wheel: the file.
        folder: where the environment is made; it is removed afterwards.
        run: runs a command, see :func:`run_command`.

    Returns:
        ``'passed'`` with the version of PyTorch, or ``'failed'`` with the command's last line.
    """
    inside = str(folder / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python'))
    install = [uv, 'pip', 'install', '--quiet', '--python', inside, f'{wheel}[cls]', *torch]
    commands = [[uv, 'venv', '--quiet', '--python', python, str(folder)], install]
    output = ''
    try:
        for command in [*commands, *([inside, '-W', 'ignore', *trial] for trial in TRIALS)]:
            code, output = run(command)
            if code:
                lines = output.strip().splitlines() or [f'exit code {code}']
                print(output, file=sys.stderr)
                return f'failed: {lines[-1]}'
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return f'passed ({output.strip().splitlines()[-1]})'


def matrix(uv: str, pythons: Sequence[str], torches: Sequence[str], run: Run = run_command) -> list[tuple[str, ...]]:
    """Try each Python with each PyTorch; return rows of Python, PyTorch and result."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = build_wheel(uv, folder / 'dist', run)
        for version in pythons:
            code, output = run([uv, 'python', 'find', version])
            for name in torches:
                result = f'no Python {version} here'
                if code == 0:
                    python = output.strip().splitlines()[-1]
                    result = try_one(uv, python, TORCHES[name], wheel, folder / 'environment', run)
                rows.append((version, name, result))
                print(f'Python {version:<5} PyTorch {name:<7} {result}', flush=True)
    return rows


def main(argv: Sequence[str] | None = None, run: Run = run_command) -> int:
    """Entry point; returns 1 where a trial failed, or where none was made."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--python', nargs='+', default=PYTHONS, metavar='VERSION', help=f'default: {" ".join(PYTHONS)}')
    parser.add_argument('--torch', nargs='+', default=tuple(TORCHES), choices=tuple(TORCHES), help='default: both')
    parser.add_argument('--uv', default='uv', help='the program that installs')
    args = parser.parse_args(argv)
    results = [result for *_, result in matrix(args.uv, args.python, args.torch, run)]
    passed, failed = (sum(result.startswith(word) for result in results) for word in ('passed', 'failed'))
    print(f'{passed} passed, {failed} failed, {len(results) - passed - failed} without an interpreter')
    return int(failed > 0 or passed == 0)


if __name__ == '__main__':
    sys.exit(main())
