#!/usr/bin/env python3
"""Set up the environment of mmstvit in a virtual environment, and do nothing where it stands already.

``light`` is what classification needs, ``full`` adds detection, video and the tests, and compiles mmcv's ops. The
Makefile calls it (`make demo`, `make test`, `make env`); it needs nothing but Python. An interrupted set-up goes on
when the same command is run again.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / 'requirements'
MIN_PYTHON, MAX_PYTHON = (3, 10), (3, 13)
# A PyTorch found in the environment and within these bounds (from, below) is kept.
TORCH_RANGE = ((2, 4), (3, 0))
# Where another OpenMMLab line is installed under the same import names, pip would write one over the other.
ORIGINAL_LINE = ('mmengine', 'mmengine-lite', 'mmcv', 'mmcv-lite', 'mmcv-full', 'mmpretrain', 'mmdet')
# Free space (GB) asked for: (light, full), with PyTorch's default CUDA build, with a CPU build, with PyTorch in place.
DISK_GB = {'cuda': (8, 9), 'cpu': (3, 4), 'present': (1, 2)}
STATE_FILE, LOG_FILE, LOCK_FILE = 'mmstvit-setup.json', 'mmstvit-setup.log', 'mmstvit-setup.lock'
# Settings of the caller that would send packages elsewhere or let others in.
FOREIGN_SETTINGS = ('PYTHONPATH', 'PYTHONHOME', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_USER', 'PIP_NO_BUILD_ISOLATION')


class SetupError(Exception):
    """The set-up cannot go on; the message is one line that says what to do."""

    def __init__(self, message: str, output: str = '') -> None:
        super().__init__(message)
        self.output = output


# ---------------------------------------------------------------------------------------------- what is wanted
def pins(path: Path = REQUIREMENTS / 'pins.txt') -> dict[str, str]:
    """The pinned versions by name (for a name with several, by Python version, the last one)."""
    lines = path.read_text(encoding='utf-8').splitlines()
    pairs = (re.match(r'([\w.-]+)==([^\s;]+)', line) for line in lines)
    return {m.group(1).lower(): m.group(2) for m in pairs if m}


def release(version: str) -> tuple[int, ...]:
    """``'2.12.1+cpu'`` -> ``(2, 12, 1)``."""
    return tuple(int(part) for part in re.match(r'\d+(\.\d+)*', version).group().split('.'))


def torch_choice(torch: str, index: str) -> str:
    """The PyTorch asked for in one line; empty when none was."""
    return ' '.join([*shlex.split(torch), *(['from', index] if index else [])])


def make_stamp(level: str, choice: str, python: str, root: Path = ROOT) -> dict[str, str]:
    """What a set-up holds when finished: its level, the PyTorch asked for, and a hash of all else it depends on."""
    parts = [python, str(root)]
    parts += [(root / 'requirements' / name).read_text(encoding='utf-8') for name in ('pins.txt', 'light.txt')]
    if level == 'full':
        parts.append((root / 'requirements' / 'full.txt').read_text(encoding='utf-8'))
    parts.append((root / 'setup.py').read_text(encoding='utf-8'))
    return {'level': level, 'torch': choice, 'hash': hashlib.sha256('\0'.join(parts).encode()).hexdigest()}


def satisfied(state: dict, level: str, choice: str, python: str, root: Path = ROOT) -> bool:
    """Whether the finished set-up recorded in ``state`` holds all that is wanted; a full one satisfies light.

    No choice of PyTorch means that any will do.
    """
    stamp = state.get('stamp')
    if not stamp or (level == 'full' and stamp['level'] != 'full'):
        return False
    return stamp == make_stamp(stamp['level'], choice or stamp['torch'], python, root)


def torch_to_install(found: str | None, torch: str, index: str, recorded: str) -> list[str]:
    """The requirements of PyTorch to install; none when the one that is there is to be kept.

    Args:
        found: Version of a PyTorch in the environment that imports, together with its torchvision.
        torch: Requirements asked for, index: pip index asked for; both may be empty.
        recorded: The choice (:func:`torch_choice`) that ``found`` was installed for.
    """
    choice = torch_choice(torch, index)
    if found and (choice == recorded if choice else TORCH_RANGE[0] <= release(found) < TORCH_RANGE[1]):
        return []
    if not torch:
        return [f'{name}=={pins()[name]}' for name in ('torch', 'torchvision')]
    wanted = shlex.split(torch)
    if not any(re.match(r'torchvision\b', Path(item).name) for item in wanted):
        wanted.append('torchvision')
    return wanted


def wheel_folder(torch_version: str, python_tag: str, cuda: bool = False) -> Path:
    """Where the compiled mmcv is kept: it fits one PyTorch and one Python only."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return cache / 'mmstvit' / 'wheels' / f'{torch_version}-{python_tag}{"-cuda" if cuda else ""}'


def cached_wheel(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob(f'onedl_mmcv-{pins()["onedl-mmcv"]}-*.whl'))), None)


# ------------------------------------------------------------------------------------------------- the checks
def check_python(version: tuple[int, ...] = tuple(sys.version_info[:2])) -> None:
    """Raise where this Python is too old, too new, or cannot make virtual environments."""
    name = '.'.join(map(str, version))
    if not MIN_PYTHON <= tuple(version[:2]) <= MAX_PYTHON:
        raise SetupError(
            f'This is Python {name}; {MIN_PYTHON[0]}.{MIN_PYTHON[1]} to {MAX_PYTHON[0]}.{MAX_PYTHON[1]} are supported '
            '(3.11 is best tested): name one with PYTHON=/path/to/python3.11'
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupError(
            f'This Python cannot make virtual environments: install its venv package (Debian, Ubuntu: '
            f'apt install python{name}-venv), or name another Python with PYTHON=/path/to/python3'
        ) from None


def check_compiler(include: str | None = None) -> None:
    """Raise where mmcv's ops cannot be compiled: no C++ compiler, or no headers of Python."""
    named = shlex.split(os.environ.get('CXX', ''))[:1]
    if not any(shutil.which(name) for name in named or ('c++', 'g++', 'clang++')):
        what = f'the compiler {named[0]} that CXX names is not there' if named else 'there is no C++ compiler'
        raise SetupError(
            f"mmcv's ops must be compiled and {what}: install one (Debian, Ubuntu: apt install g++; "
            'Fedora: dnf install gcc-c++; macOS: xcode-select --install); `make demo` needs none'
        )
    if not (Path(include or sysconfig.get_path('include')) / 'Python.h').exists():
        raise SetupError(
            "mmcv's ops must be compiled and the headers of Python are missing: install them (Debian, Ubuntu: "
            'apt install python3-dev; Fedora: dnf install python3-devel); `make demo` needs none'
        )


def check_disk(folder: Path, level: str, build: str) -> None:
    """Raise where ``folder`` has too little space for the set-up; ``build`` is a key of ``DISK_GB``."""
    needed = DISK_GB[build][level == 'full']
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free / 1e9
    if free < needed:
        raise SetupError(
            f'{there} has {free:.1f} GB free and the set-up needs {needed}: make room, or choose another place with '
            'VENV=/path/to/folder (a CPU-only PyTorch, chosen with TORCH_INDEX, needs 5 GB less)'
        )


def damaged(site: Path) -> list[Path]:
    """The ``.dist-info`` folders of packages that an interrupted pip left incomplete."""
    files = {info: recorded_files(info) for info in sorted(site.glob('*.dist-info'))}
    sizes: dict[Path, set[int]] = {}
    for recorded in files.values():
        for path, size in recorded or ():
            sizes.setdefault(path, set()).add(size)  # the two OpenCV packages hold the same files

    def whole(path: Path) -> bool:
        return path.exists() and path.stat().st_size in sizes[path]

    return [
        info for info, recorded in files.items() if recorded is None or not all(whole(path) for path, _ in recorded)
    ]


def recorded_files(info: Path) -> list[tuple[Path, int]] | None:
    """The files, with their sizes, that the package of a ``.dist-info`` folder consists of; None if that is broken."""
    if not (info / 'METADATA').exists():
        return None
    try:
        with open(info / 'RECORD', encoding='utf-8', newline='') as file:
            rows = [(info.parent / row[0], int(row[2])) for row in csv.reader(file) if len(row) == 3 and row[2]]
    except (OSError, ValueError):
        return None
    # Compiled files and pip's own notes may be written anew after installation.
    return [(path, size) for path, size in rows if path.suffix != '.pyc' and path.parent.suffix != '.dist-info']


def advice(output: str) -> str:
    """One line that says what to do about a failed command, from its output."""
    known = (
        (r'No space left on device', 'the disk is full: make room, then run the same command again'),
        (r'Python\.h: No such file', "the headers of Python are missing: apt install python3-dev (or your system's)"),
        (
            r'Killed signal|fatal error: Killed|out of memory|MemoryError',
            'memory ran out: run it again with fewer compilers at a time, MAX_JOBS=1',
        ),
        (
            r'name resolution|NewConnectionError|Max retries|ConnectionError|timed out|ProxyError|CERTIFICATE_VERIFY',
            'the package index could not be reached: check network and proxy, then run the same command again',
        ),
        (r'ResolutionImpossible|conflicting dependencies', 'the versions asked for exclude each other: check TORCH'),
        (
            r'No matching distribution found for (\S+)',
            'the package index has no {0} for this Python and system: check TORCH and TORCH_INDEX, '
            'or try PYTHON=/path/to/python3.11',
        ),
    )
    for pattern, text in known:
        match = re.search(pattern, output)
        if match:
            return text.format(*match.groups())
    return 'mend what the lines above name, then run the same command again'


# -------------------------------------------------------------------------------------------------- the set-up
class Setup:
    """One run of the set-up: numbered steps, each of which leaves alone what is there already."""

    STEPS = 5

    def __init__(self, level: str, venv: Path, torch: str = '', index: str = '') -> None:
        self.level, self.venv, self.torch, self.index = level, venv, torch, index
        self.full = level == 'full'
        self.choice = torch_choice(torch, index)
        self.python = venv / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
        self.log = venv / LOG_FILE
        self.constraints = venv / 'mmstvit-constraints.txt'
        self.state = self.read_state()
        self.step_number = 0

    # --- state: what was finished, kept in the environment
    def read_state(self) -> dict:
        try:
            return json.loads((self.venv / STATE_FILE).read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return {}

    def save(self, **changes: object) -> None:
        self.state.update(changes)
        written = self.venv / (STATE_FILE + '.new')
        written.write_text(json.dumps(self.state, indent=1), encoding='utf-8')
        os.replace(written, self.venv / STATE_FILE)

    # --- running things
    @contextmanager
    def step(self, what: str):
        self.step_number += 1
        say(f'[{self.step_number}/{self.STEPS}] {what}')
        start = time.monotonic()
        yield
        say(f'      done in {duration(time.monotonic() - start)}')

    def skip(self, what: str) -> None:
        self.step_number += 1
        say(f'[{self.step_number}/{self.STEPS}] {what}: already there')

    def call(self, *command: object, **env: str) -> None:
        """Run a command, its output into the log; say each minute that it still runs."""
        start = time.monotonic()
        with open(self.log, 'a', encoding='utf-8', errors='replace') as log:
            log.write(f'\n$ {" ".join(map(str, command))}\n')
            log.flush()
            begin = log.tell()
            process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env=clean_env(env)
            )
            try:
                while process.poll() is None:
                    try:
                        process.wait(60)
                    except subprocess.TimeoutExpired:
                        say(f'      ... {duration(time.monotonic() - start)}')
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if process.returncode:
            with open(self.log, 'rb') as log:
                log.seek(begin)
                output = log.read().decode('utf-8', 'replace')
            tail = '\n'.join(output.strip().splitlines()[-15:])
            raise SetupError(f'{advice(output)} (all of the output: {self.log})', tail)

    def pip(self, command: str, *args: object, **env: str) -> None:
        self.call(self.python, '-m', 'pip', command, *args, **env)

    def ask(self, code: str) -> dict:
        """What ``code``, run by the environment's Python, prints as JSON in its last line; empty when it fails."""
        result = subprocess.run(
            [str(self.python), '-c', code], capture_output=True, text=True, cwd=self.venv, env=clean_env({})
        )
        with open(self.log, 'a', encoding='utf-8') as log:
            log.write(f'\n$ python -c {code!r}\n{result.stdout}{result.stderr}')
        try:
            return json.loads(result.stdout.strip().splitlines()[-1]) if result.returncode == 0 else {}
        except (IndexError, ValueError):
            return {}

    def installed(self) -> dict[str, str]:
        """Versions of the environment's packages, by name."""
        return self.ask(
            'import importlib.metadata as m, json; '
            'print(json.dumps({d.metadata["Name"].lower().replace("_", "-"): d.version for d in m.distributions() '
            'if d.metadata["Name"]}))'
        )

    # --- the steps
    def run(self) -> None:
        python = '.'.join(map(str, sys.version_info[:2]))
        if self.python.exists() and satisfied(self.state, self.level, self.choice, python):
            return
        if self.venv.exists() and any(self.venv.iterdir()) and not (self.venv / 'pyvenv.cfg').exists():
            raise SetupError(f'{self.venv} is no virtual environment: choose another folder with VENV=/path/to/folder')
        minutes = 'about 15 minutes on two cores where mmcv must be compiled, else 2' if self.full else '2 to 3 minutes'
        say(f'Setting up the {self.level} environment in {shown(self.venv)}: {minutes}.')
        check_python()
        build = self.torch_build()
        check_disk(self.venv, self.level, build)
        if self.full and not any(cached_wheel(f) for f in wheel_folder('*', '*').parent.glob('*')):
            check_compiler()
        self.venv.mkdir(parents=True, exist_ok=True)
        with locked(self.venv / LOCK_FILE):
            self.state = self.read_state()
            if self.python.exists() and satisfied(self.state, self.level, self.choice, python):
                return
            start = time.monotonic()
            self.log.write_text('')
            self.environment(python)
            self.save(busy=True, stamp=None)
            torch = self.pytorch(build)
            self.packages()
            self.mmcv(torch)
            self.project()
            self.save(busy=False, stamp=make_stamp(self.level, self.choice or self.state['torch'], python))
            say(f'The {self.level} environment stands ({duration(time.monotonic() - start)}).')

    def torch_build(self) -> str:
        if self.torch_there() and not self.choice:
            return 'present'
        return 'cpu' if 'cpu' in self.choice.lower() else 'cuda'

    def environment(self, python: str) -> None:
        with self.step(f'Virtual environment with Python {python} (about 5 seconds)'):
            if self.state.get('busy'):
                self.repair()
            usable = self.python.exists() and self.ask('import json, pip; print(json.dumps({"pip": pip.__version__}))')
            if not usable:
                self.call(sys.executable, '-m', 'venv', self.venv)
            version = self.ask('import json, sys; print(json.dumps({"python": sys.version_info[:2]}))').get('python')
            if version is None or '.'.join(map(str, version)) != python:
                theirs = '.'.join(map(str, version)) if version else 'a Python that is gone'
                raise SetupError(
                    f'{shown(self.venv)} was made with {theirs}, and this is Python {python}: remove it '
                    f'(rm -rf {shown(self.venv)}), or choose another folder with VENV=/path/to/folder'
                )
            other = [name for name in ORIGINAL_LINE if name in self.installed()]
            if other:
                raise SetupError(
                    f'{shown(self.venv)} holds {", ".join(other)} of the original OpenMMLab line, which the maintained '
                    'line would be written over: choose another folder with VENV=/path/to/folder'
                )

    def repair(self) -> None:
        """Make pip forget the packages that an interrupted run left incomplete, so that it installs them again."""
        for site in self.venv.glob('lib/python*/site-packages'):
            for info in damaged(site):
                say(
                    f'      {info.name.split("-")[0]} was left incomplete by an interrupted set-up: installing it again'
                )
                shutil.rmtree(info)
            for leftover in site.glob('~*'):  # pip's name for what it was about to replace
                shutil.rmtree(leftover, ignore_errors=True)

    def pytorch(self, build: str) -> dict:
        """Install PyTorch where needed; return what the environment then has."""
        code = (
            'import json, torch, torchvision; print(json.dumps({"torch": torch.__version__, "torchvision": '
            'torchvision.__version__, "gpu": torch.cuda.is_available(), "cuda": torch.version.cuda}))'
        )
        found = self.ask(code) if self.torch_there() else {}
        wanted = torch_to_install(found.get('torch'), self.torch, self.index, self.state.get('torch') or '')
        if not wanted:
            self.skip(f'PyTorch {found["torch"]}')
            self.save(torch=self.state.get('torch') or '')
        else:
            size = {'cpu': 'about 30 seconds, 0.2 GB download'}.get(build, 'about 1 minute, 2.6 GB download')
            with self.step(f'PyTorch: {" ".join(wanted)} ({size})'):
                self.write_constraints()
                if self.index:
                    # The index may have PyTorch alone, and a build of the version that is there already.
                    self.pip('install', '--force-reinstall', '--no-deps', '--index-url', self.index, *wanted)
                    self.write_constraints(self.installed())
                    self.pip('install', '--extra-index-url', self.index, '-c', self.constraints, 'torch', 'torchvision')
                else:
                    self.pip('install', '-c', self.constraints, *wanted)
                found = self.ask(code)
                if not found:
                    raise SetupError(
                        'torch and torchvision are installed and do not import together: '
                        f'name a pair that fits, TORCH="torch==X torchvision==Y" (output: {self.log})'
                    )
                self.save(torch=self.choice)
        # As pip knows them: `torch.__version__` may be 2.12.1+cu130 where the package is 2.12.1.
        self.write_constraints(self.installed())
        return found

    def torch_there(self) -> bool:
        return any(self.venv.glob('lib/python*/site-packages/torch/version.py'))

    def write_constraints(self, installed: dict[str, str] | None = None) -> None:
        """The pins without PyTorch's, and with the PyTorch that is installed: nothing after it moves it."""
        lines = (REQUIREMENTS / 'pins.txt').read_text(encoding='utf-8').splitlines()
        lines = [line for line in lines if not re.match(r'torch(vision)?==', line)]
        lines += [f'{name}=={installed[name]}' for name in ('torch', 'torchvision') if name in (installed or {})]
        self.constraints.write_text('\n'.join(lines) + '\n', encoding='utf-8')

    def packages(self) -> None:
        what = 'mmpretrain, mmdet, mmaction2 and what they need' if self.full else 'mmpretrain and what it needs'
        with self.step(f'{what} (about {60 if self.full else 30} seconds)'):
            self.pip('install', '-c', self.constraints, '-r', REQUIREMENTS / f'{self.level}.txt')
            if self.full:
                self.pip('install', '--no-deps', '-c', self.constraints, 'mmaction2')

    def mmcv(self, torch: dict) -> None:
        version = pins()['onedl-mmcv']
        there = self.installed().get('onedl-mmcv') == version
        compiled = there and any(self.venv.glob('lib/python*/site-packages/mmcv/_ext*'))
        if there and not compiled and not self.full:
            self.skip(f'mmcv {version} without compiled ops')
            return
        # Ops compiled for another PyTorch may import and then crash: the record of it counts too.
        fits = compiled and self.state.get('mmcv', torch['torch']) == torch['torch'] and self.ops_import()
        if fits:
            self.skip(f'mmcv {version} with compiled ops')
            return
        if not self.full:
            with self.step(f'mmcv {version} without compiled ops (about 15 seconds)'):
                # An isolated build finds no torch and leaves the ops out. No cache: pip's own one does not tell a
                # wheel with ops from one without.
                self.pip('install', '--no-cache-dir', '--no-deps', '--force-reinstall', f'onedl-mmcv=={version}')
            return
        cuda = builds_cuda(torch)
        folder = wheel_folder(torch['torch'], python_tag(), cuda)
        wheel = cached_wheel(folder)
        if wheel:
            with self.step(f'mmcv {version} with compiled ops, built here before (about 10 seconds)'):
                self.install_wheel(wheel)
                if self.ops_import():
                    self.save(mmcv=torch['torch'])
                    return
                say(f'      {wheel} does not work in this environment: compiling it anew')
                wheel.unlink()
        self.step_number -= bool(wheel)
        check_compiler()
        time_needed = 'with CUDA: 20 minutes or more' if cuda else '8 to 9 minutes on two cores'
        with self.step(f'mmcv {version}: compiling its ops ({time_needed}; later set-ups reuse the result)'):
            if torch['gpu'] and not cuda:
                say(f'      no nvcc of CUDA {torch["cuda"]} here: the ops are compiled for the CPU alone')
            self.install_wheel(self.build_wheel(version, folder, cuda))
            if not self.ops_import():
                raise SetupError(f"mmcv's ops were compiled and do not import: see the end of {self.log}")
            self.save(mmcv=torch['torch'])

    def build_wheel(self, version: str, folder: Path, cuda: bool) -> Path:
        """Compile mmcv into the cache folder; the wheel appears there only when whole."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            building = Path(tempfile.mkdtemp(prefix='building-', dir=folder))
        except OSError:  # no home, or one that cannot be written to
            folder = self.venv / 'wheels'
            folder.mkdir(exist_ok=True)
            building = Path(tempfile.mkdtemp(prefix='building-', dir=folder))
        env = {'MAX_JOBS': os.environ.get('MAX_JOBS') or str(jobs())}
        if not cuda:
            env['CUDA_VISIBLE_DEVICES'] = ''  # mmcv's build asks for nvcc as soon as it sees a GPU
        options = ('--no-build-isolation', '--no-deps', '--no-cache-dir', '-w', building)
        try:
            self.pip('wheel', *options, f'onedl-mmcv=={version}', **env)
            wheel = next(building.glob('*.whl'))
            os.replace(wheel, folder / wheel.name)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return folder / wheel.name

    def install_wheel(self, wheel: Path) -> None:
        self.pip('install', '--no-cache-dir', '--no-deps', '--force-reinstall', wheel)

    def ops_import(self) -> bool:
        return bool(self.ask('import json, mmcv._ext, mmcv.ops; print(json.dumps({"ops": True}))'))

    def project(self) -> None:
        with self.step('mmstvit itself, editable, and a check of the whole (about 15 seconds)'):
            self.pip('install', '--no-build-isolation', '--no-deps', '-e', ROOT)
            result = subprocess.run(
                [str(self.python), '-m', 'mmstvit.check_env'],
                cwd=self.venv,
                env=clean_env({}),
                capture_output=True,
                text=True,
            )
            if result.returncode:
                raise SetupError('run the commands above, then the same one again', result.stdout + result.stderr)


# ------------------------------------------------------------------------------------------------------ helpers
def say(line: str) -> None:
    print(line, flush=True)


def shown(path: Path) -> str:
    """The path as the user would write it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def duration(seconds: float) -> str:
    return f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.1f} min'


def clean_env(changes: dict[str, str]) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if key not in FOREIGN_SETTINGS}
    return {**env, 'PYTHONNOUSERSITE': '1', 'PIP_DISABLE_PIP_VERSION_CHECK': '1', **changes}


def python_tag() -> str:
    return f'cp{sys.version_info[0]}{sys.version_info[1]}'


def jobs() -> int:
    """Compilers to run at a time: one a core, and 1.5 GB of memory for each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    try:
        memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1.5e9
    except (AttributeError, OSError, ValueError):
        return cores
    return max(1, min(cores, int(memory)))


def builds_cuda(torch: dict) -> bool:
    """Whether mmcv's CUDA ops can be compiled: a GPU (or FORCE_CUDA=1), and nvcc of the CUDA that PyTorch has."""
    if not torch['cuda'] or not (torch['gpu'] or os.environ.get('FORCE_CUDA') == '1'):
        return False
    home = os.environ.get('CUDA_HOME') or '/usr/local/cuda'
    nvcc = next(
        (path for path in (Path(home) / 'bin' / 'nvcc', shutil.which('nvcc')) if path and Path(path).exists()), ''
    )
    if not nvcc:
        return False
    output = subprocess.run([str(nvcc), '--version'], capture_output=True, text=True).stdout
    match = re.search(r'release (\d+)\.', output)
    return bool(match) and match.group(1) == torch['cuda'].split('.')[0]


@contextmanager
def locked(path: Path):
    """Let one set-up at a time work on an environment (`make -j demo test`)."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(path, 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('Another set-up works on this environment: waiting for it.')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('level', choices=('light', 'full'))
    parser.add_argument('--venv', default='.venv', help='folder of the virtual environment (default: .venv)')
    parser.add_argument('--torch', default='', help='requirements of the PyTorch build (default: the tested one)')
    parser.add_argument('--torch-index', default='', help="pip index to take PyTorch from (default: pip's own)")
    options = parser.parse_args(args)
    venv = Path(os.path.abspath(os.path.expanduser(options.venv)))
    try:
        Setup(options.level, venv, options.torch.strip(), options.torch_index.strip()).run()
    except SetupError as error:
        if error.output:
            print(error.output, file=sys.stderr)
        print(f'The set-up stopped: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nInterrupted: run the same command again to go on from here.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
