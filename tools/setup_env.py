#!/usr/bin/env python3
"""Set up the environment of mmstvit in a virtual environment, and do nothing where it stands already.

The Makefile calls it; it needs nothing but Python. Packages are installed by uv, which is much faster, or by pip where
uv cannot be had. An interrupted set-up is repaired when the same command is run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / 'requirements'
PYTHONS = ((3, 10), (3, 13))
# The original OpenMMLab packages have the import names of the maintained ones, which would be written over them.
ORIGINAL = ('mmengine', 'mmengine_lite', 'mmcv', 'mmcv_lite', 'mmcv_full', 'mmpretrain', 'mmdet', 'mmsegmentation')
# Settings of the caller that would send packages elsewhere.
FOREIGN = ('PYTHONPATH', 'PYTHONHOME', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_USER', 'PIP_NO_BUILD_ISOLATION')


def pin(name: str) -> str:
    """Return the line of a package in pins.txt, e.g. ``'torch==2.12.1'``."""
    lines = (REQUIREMENTS / 'pins.txt').read_text(encoding='utf-8').splitlines()
    return next(line for line in lines if line.startswith(f'{name}=='))


class Setup:
    """One run of the set-up, see ``--help`` for its arguments."""

    def __init__(self, venv: Path, torch: str, index: str, compiled: bool) -> None:
        self.venv, self.torch, self.index = venv, shlex.split(torch), index
        if self.torch and not any(item.startswith('torchvision') for item in self.torch):
            self.torch.append('torchvision')
        self.python = venv / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
        self.log, self.state_file = venv / 'mmstvit-setup.log', venv / 'mmstvit-setup.json'
        self.state = json.loads(self.state_file.read_text()) if self.state_file.exists() else {}
        self.compiled = compiled or self.state.get('compiled', False)

    def wanted(self) -> dict[str, object]:
        """Return what a finished set-up holds; without a choice of PyTorch, the last one stays."""
        files = [ROOT / 'setup.py', REQUIREMENTS / 'pins.txt', REQUIREMENTS / 'environment.txt', Path(__file__)]
        parts = [sys.version, str(ROOT), *(path.read_text(encoding='utf-8') for path in files)]
        chosen = [*self.torch, self.index] if self.torch or self.index else self.state.get('torch')
        digest = hashlib.sha256('\0'.join(parts).encode()).hexdigest()
        return dict(torch=chosen, compiled=self.compiled, hash=digest)

    def run(self) -> None:
        """Do what is left to do."""
        wanted = self.wanted()
        if self.state == wanted and self.python.exists():
            return
        self.check()
        print(f'Setting up {self.venv}; times are those of two cores with nothing beside:', flush=True)
        start = time.monotonic()
        # An interrupted run may have left any package incomplete.
        again = ['--force-reinstall'] if self.state.get('busy') else []
        if not self.python.exists():
            subprocess.run([sys.executable, '-m', 'venv', str(self.venv)], check=True)
        self.state_file.write_text(json.dumps({**self.state, 'busy': True}))
        self.log.write_text('')
        self.step('uv, the installer: 2 s', 'pip', 'install', '--quiet', 'uv', fatal=False)
        if again or wanted['torch'] != self.state.get('torch') or not self.version('torch'):
            source = ['--index-url', self.index, '--no-deps', '--force-reinstall'] if self.index else again
            self.install(
                'PyTorch: 20 to 60 s, a download of 2.6 GB',
                *source,
                *(self.torch or [pin('torch'), pin('torchvision')]),
            )
        pins = [line for line in (REQUIREMENTS / 'pins.txt').read_text().splitlines() if not line.startswith('torch')]
        pins += [f'{name}=={self.version(name)}' for name in ('torch', 'torchvision')]  # nothing later moves them
        (self.venv / 'constraints.txt').write_text('\n'.join(pins))
        source = [*again, *(['--extra-index-url', self.index] if self.index else [])]
        files = ['-c', self.venv / 'constraints.txt', '-r', REQUIREMENTS / 'environment.txt']
        self.install('mmpretrain, mmdet, mmseg and what they need: 15 s', *source, *files, 'torch', 'torchvision')
        # Without a cache: it does not tell an mmcv with compiled operators from one without.
        self.install('mmcv: 5 s', '--no-deps', '--no-cache-dir', *again, pin('onedl-mmcv'))
        self.install('mmaction2 and mmstvit: 2 s', '--no-deps', *again, pin('mmaction2'), '-e', ROOT)
        if self.compiled and not any(self.venv.glob('lib/python*/site-packages/mmcv/_ext*')):
            build = ('--no-build-isolation', '--no-deps', '--no-cache-dir', '--force-reinstall', pin('onedl-mmcv'))
            self.step("mmcv's operators, compiled: 15 to 30 minutes", 'pip', 'install', *build)
        self.step('a check of the whole: 10 s', 'mmstvit.check_env')
        self.state_file.write_text(json.dumps(wanted))
        print(f'The environment stands ({time.monotonic() - start:.0f} s).', flush=True)

    def check(self) -> None:
        """Refuse a Python or a folder that would not do."""
        version, (low, high) = f'python{sys.version_info[0]}.{sys.version_info[1]}', PYTHONS
        sites = list(self.venv.glob('lib/python*/site-packages'))
        others = [name for name in ORIGINAL for site in sites if any(site.glob(f'{name}-*.dist-info'))]
        fault = ''
        if not low <= sys.version_info[:2] <= high:
            sys.exit(f'this is {version}: choose one of 3.{low[1]} to 3.{high[1]} with PYTHON=/path/to/python')
        if self.venv.exists() and any(self.venv.iterdir()) and not (self.venv / 'pyvenv.cfg').exists():
            fault = 'is no virtual environment'
        elif sites and version not in {site.parent.name for site in sites}:
            fault = f'was made with another Python than this one, {version}'
        elif others:
            fault = f'has {", ".join(others)}, which the maintained packages (onedl-*) would be written over'
        if fault:
            sys.exit(f'{self.venv} {fault}: choose another folder with VENV=/path/to/folder')

    def version(self, package: str) -> str:
        """Return the version of an installed package, or ''."""
        code = f'import importlib.metadata as m; print(m.version({package!r}))'
        return subprocess.run([self.python, '-I', '-c', code], capture_output=True, text=True).stdout.strip()

    def install(self, what: str, *args: object) -> None:
        """Install packages with uv, or where that fails, with pip, which has other settings of index and proxy."""
        # Bytecode, which pip makes too: else each start of Python would compile the toolboxes where it may not keep it.
        # An index of PyTorch may hold other packages too, in few versions: by default uv looks no further for those.
        options = ['--compile-bytecode', '--index-strategy', 'unsafe-best-match']
        if not self.step(what, 'uv', 'pip', 'install', *options, *args, fatal=False):
            self.step(f'{what} (uv failed, pip tries)', 'pip', 'install', *args)

    def step(self, what: str, module: str, *args: object, fatal: bool = True) -> bool:
        """Run a module in the environment, with its output in the log; return whether it succeeded."""
        print(f'  {what}', flush=True)
        env = {key: value for key, value in os.environ.items() if key not in FOREIGN}
        env['VIRTUAL_ENV'] = str(self.venv)
        with self.log.open('a', encoding='utf-8') as log:
            command = [self.python, '-I', '-m', module, *args]
            code = subprocess.run(list(map(str, command)), stdout=log, stderr=log, cwd=ROOT, env=env).returncode
        if code and fatal:
            print('\n'.join(self.log.read_text(encoding='utf-8').splitlines()[-15:]), file=sys.stderr)
            sys.exit(f'mend what the lines above name, then run the same command again (more in {self.log})')
        return code == 0


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--venv', type=Path, default=Path('.venv'), help='folder of the environment')
    parser.add_argument('--torch', default='', help='requirements of PyTorch (default: as it is, or the tested one)')
    parser.add_argument('--torch-index', default='', help='package index to take PyTorch from')
    parser.add_argument('--ops', choices=('', 'compiled'), default='', help="compile all of mmcv's operators")
    args = parser.parse_args()
    try:
        Setup(args.venv.expanduser().absolute(), args.torch, args.torch_index, args.ops == 'compiled').run()
    except KeyboardInterrupt:
        sys.exit('\nInterrupted: run the same command again to go on.')


if __name__ == '__main__':
    main()
