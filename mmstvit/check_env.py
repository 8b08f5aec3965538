"""``python -m mmstvit.check_env``: the versions found, what clashes, and the command that mends it.

Exit code 0 when nothing clashes, 1 otherwise. Only the standard library is imported here; the packages are tried in a
process of their own, so that one that crashes can still be named.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .version import __version__

# The versions tested together (`requirements/pins.txt`); commands that mend name these.
TESTED = {
    'torch': '2.12.1',
    'torchvision': '0.27.1',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmpretrain': '1.3.6',
    'onedl-mmdetection': '3.5.1',
    'mmaction2': '1.2.0',
    'numpy': '2.2.6',
    'opencv-python': '4.12.0.88',
    'setuptools': '80.10.2',
}
# Packages that install the same module: the maintained line first, then the original one.
LINES = {
    'mmengine': ('onedl-mmengine', 'mmengine', 'mmengine-lite'),
    'mmcv': ('onedl-mmcv', 'mmcv', 'mmcv-lite', 'mmcv-full'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmaction': ('mmaction2',),
}
OPENCV = ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')
OTHERS = ('torch', 'torchvision', 'numpy', *OPENCV, 'decord', 'av', 'scipy', 'scikit-learn', 'matplotlib', 'timm')
OTHERS += ('fvcore', 'pycocotools', 'setuptools', 'wrapt')
# What each toolbox asserts at import: {package: {module: (from, below)}}.
BOUNDS = {
    'onedl-mmpretrain': {'mmcv': ('2.0.0', '2.4.0'), 'mmengine': ('0.8.3', '1.0.0')},
    'mmpretrain': {'mmcv': ('2.0.0', '2.4.0'), 'mmengine': ('0.8.3', '1.0.0')},
    'onedl-mmdetection': {'mmcv': ('2.0.0', '3.0.0'), 'mmengine': ('0.8.3', '1.0.0')},
    'mmdet': {'mmcv': ('2.0.0', '2.2.0'), 'mmengine': ('0.7.1', '1.0.0')},
    # It asserts mmcv < 2.2.0 too, which mmstvit.compat.mmaction2 works round: a note, see find_clashes.
    'mmaction2': {'mmcv': ('2.0.0', '3.0.0'), 'mmengine': ('0.7.1', '1.0.0')},
}
EXTRAS = {'mmengine': 'cls', 'mmcv': 'cls', 'mmpretrain': 'cls', 'mmdet': 'det', 'mmaction': 'video'}
# Modules to try, in this order: each needs those before it.
TRIED = ('torch', 'torchvision', 'cv2', 'mmengine', 'mmcv', 'mmcv._ext', 'mmpretrain', 'mmdet', 'mmaction')
BUILD_OPS = (
    f"pip install 'setuptools=={TESTED['setuptools']}' wheel packaging ninja psutil && "
    f'pip install --no-build-isolation --no-cache-dir --no-deps --force-reinstall onedl-mmcv=={TESTED["onedl-mmcv"]}'
)


@dataclass(frozen=True)
class Clash:
    """Something that does not go together (``note``: it does, and is worth knowing), and the command that mends it."""

    message: str
    mend: str = ''
    note: bool = False


def find_versions() -> dict[str, str | None]:
    """The version of every package of interest by the name pip knows it by, ``None`` where it is not installed.

    ``'python'`` is Python itself, ``'mmcv._ext'`` the file of mmcv's compiled operators. Nothing is imported.
    """
    names = [*(name for line in LINES.values() for name in line), *OTHERS]
    versions: dict[str, str | None] = {'python': platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    spec = importlib.util.find_spec('mmcv')
    folders = spec.submodule_search_locations if spec else None
    ops = [
        path.name for folder in folders or () for path in Path(folder).glob('_ext*') if path.suffix in ('.so', '.pyd')
    ]
    versions['mmcv._ext'] = ops[0] if ops else None
    return versions


def find_failures(versions: Mapping[str, str | None]) -> dict[str, str]:
    """Try to import what is installed; the reason of each failure by module, only the first of a chain."""
    present = [module for module in TRIED if _is_there(module, versions)]
    code = (
        'import contextlib, importlib, json, os, sys\n'
        'sys.stderr = open(os.devnull, "w")\n'
        f'for name in {present!r}:\n'
        '    print(json.dumps(["try", name, ""]), flush=True)\n'
        '    try:\n'
        '        if name == "mmaction":\n'
        '            from mmstvit.compat import mmaction2; mmaction2.install()\n'
        '        with contextlib.redirect_stdout(sys.stderr):\n'
        '            importlib.import_module(name)\n'
        '    except BaseException as error:\n'
        '        print(json.dumps(["failed", name, f"{type(error).__name__}: {error}"]), flush=True)\n'
        'print(json.dumps(["end", "", ""]), flush=True)\n'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith('["')]
    failures = {name: reason.strip().split('\n')[0] for kind, name, reason in lines if kind == 'failed'}
    if lines and lines[-1][0] != 'end':
        failures[lines[-1][1]] = f'the process died (exit code {result.returncode})'
    return failures


def find_clashes(versions: Mapping[str, str | None], failures: Mapping[str, str] | None = None) -> list[Clash]:
    """What does not go together in ``versions``, as :func:`find_versions` gives them.

    Args:
        versions: versions by package; an absent key counts as not installed.
        failures: reasons why modules do not import, as :func:`find_failures` gives them.
    """
    failures = dict(failures or {})
    found = [
        *_python_and_torch(versions, failures),
        *_lines(versions),
        *_bounds(versions),
        *_compiled_ops(versions, failures),
        *_arrays(versions),
        *_video(versions),
    ]
    if not any(not clash.note for clash in found):
        # A failure that no rule explains: the first one, those after it mostly follow from it.
        for module, reason in list(failures.items())[:1]:
            package = _package(module, versions)
            mend = f'pip install --force-reinstall --no-deps {_pinned(package)}'
            found.append(Clash(f'{module} is installed and does not import: {reason}', mend))
    return found


# --------------------------------------------------------------------------------------------------- the rules
def _python_and_torch(versions: Mapping, failures: Mapping) -> list[Clash]:
    found = []
    pair = f'pip install {_pinned("torch")} {_pinned("torchvision")}'
    if versions.get('python') and _release(versions['python']) < (3, 10, 0):
        found.append(Clash(f'Python {versions["python"]} is below 3.10', 'make env PYTHON=/path/to/python3.11'))
    torch, vision = versions.get('torch'), versions.get('torchvision')
    if not torch or not vision:
        missing = ' and '.join(name for name in ('torch', 'torchvision') if not versions.get(name))
        return [*found, Clash(f'no {missing}, which every toolbox needs', pair)]
    if _release(torch) < (2, 6, 0):
        message = f'torch {torch} is below 2.6: it cannot read checkpoints without running what is in them'
        return [*found, Clash(message, pair)]
    # torchvision 0.15 belongs to torch 2.0, 0.16 to 2.1, and so on.
    fitting = f'0.{_release(torch)[1] + 15}'
    if _release(torch)[0] == 2 and _release(vision)[:2] != _release(f'{fitting}.0')[:2]:
        found.append(Clash(f'torchvision {vision} does not fit torch {torch}, which needs torchvision {fitting}', pair))
    elif 'torchvision' in failures and 'torch' not in failures:
        message = f'torchvision {vision} is another build than torch {torch}: {failures["torchvision"]}'
        found.append(Clash(message, f'pip install --force-reinstall {pair[len("pip install ") :]}'))
    return found


def _lines(versions: Mapping) -> list[Clash]:
    found = []
    for module, names in LINES.items():
        there = [name for name in names if versions.get(name)]
        if len(there) > 1:
            message = f'{" and ".join(f"{name} {versions[name]}" for name in there)} both install the module {module}'
            keep = there[0]
            mend = f'pip uninstall -y {" ".join(there[1:])} && '
            mend += BUILD_OPS if keep == 'onedl-mmcv' else f'pip install --force-reinstall --no-deps {_pinned(keep)}'
            found.append(Clash(message, mend))
        elif not there and module in ('mmengine', 'mmcv', 'mmpretrain'):
            found.append(Clash(f'no {module}: classification needs it', f'pip install {_pinned(names[0])}'))
    original = versions.get('mmengine') or versions.get('mmengine-lite')
    if original and not versions.get('onedl-mmengine'):
        name = 'mmengine' if versions.get('mmengine') else 'mmengine-lite'
        if _release(versions.get('setuptools') or '0') >= (82, 0, 0):
            message = f'{name} {original} needs pkg_resources, which setuptools {versions["setuptools"]} has no more'
            found.append(Clash(message, "pip install 'setuptools<82'"))
        # From 2.6 on torch loads weights alone by default.
        if _release(original) < (0, 10, 8) and versions.get('torch'):
            message = f'{name} {original} loads the checkpoints it writes only in programs that import mmstvit'
            mend = f'pip uninstall -y {name} && pip install {_pinned("onedl-mmengine")}'
            found.append(Clash(message, mend, note=True))
    return found


def _bounds(versions: Mapping) -> list[Clash]:
    found = []
    doubled = {name for names in LINES.values() for name in names if sum(bool(versions.get(n)) for n in names) > 1}
    for package, bounds in BOUNDS.items():
        if package in doubled:  # reported already, and its version says little
            continue
        for module, (low, below) in bounds.items():
            name, version = _installed(module, versions)
            if not versions.get(package) or not version or _release(low) <= _release(version) < _release(below):
                continue
            message = f'{package} {versions[package]} needs {module} >= {low}, < {below}, and {name} is {version}'
            if name == LINES[module][0] or package == 'mmaction2':
                mend = BUILD_OPS if module == 'mmcv' else f'pip install {_pinned(LINES[module][0])}'
                if name != LINES[module][0]:
                    mend = f'pip uninstall -y {name} && {mend}'
            else:
                mend = f"pip install '{name}>={low},<{below}'"
            if package == 'mmdet' and module == 'mmcv' and name == 'onedl-mmcv':
                mend = f'pip uninstall -y mmdet && pip install {_pinned("onedl-mmdetection")}'
            found.append(Clash(message, mend))
    return found


def _compiled_ops(versions: Mapping, failures: Mapping) -> list[Clash]:
    name, version = _installed('mmcv', versions)
    detection, _ = _installed('mmdet', versions)
    if not version:
        return []
    mend = BUILD_OPS if name == 'onedl-mmcv' else f'pip uninstall -y {name} && {BUILD_OPS}'
    if detection and name == 'mmcv-lite':
        return [Clash(f'mmcv-lite {version} has no mmcv.ops, which {detection} needs', mend)]
    if detection and not versions.get('mmcv._ext'):
        message = (
            f'{name} {version} has no compiled operators of its own: NMS, RoIAlign, RoIPool and the focal loss are '
            "torchvision's, others raise where they are called"
        )
        return [Clash(message, mend, note=True)]
    if '_ext' in ''.join(failures) and not {'torch', 'cv2', 'mmengine', 'mmcv'} & set(failures):
        message = f"{name}'s compiled operators were built for another PyTorch than {versions.get('torch')}"
        return [Clash(f'{message}: {failures["mmcv._ext"]}', mend)]
    return []


def _arrays(versions: Mapping) -> list[Clash]:
    found = []
    numpy = versions.get('numpy')
    there = {name: versions[name] for name in OPENCV if versions.get(name)}
    if not numpy:
        return [Clash('no numpy', f'pip install {_pinned("numpy")}')]
    if len(set(there.values())) > 1:
        message = f'{" and ".join(f"{name} {version}" for name, version in there.items())} share the module cv2'
        # imaug, which mmdet brings, needs OpenCV below 4.13.
        best = TESTED['opencv-python']
        mend = f'pip install --force-reinstall --no-deps {" ".join(f"{name}=={best}" for name in there)}'
        found.append(Clash(f'{message} and differ in version', mend))
    for name, version in there.items():
        if _release(version) < (4, 10, 0) and _release(numpy) >= (2, 0, 0):
            mend = f"pip install '{name}=={TESTED['opencv-python']}'"
            found.append(Clash(f'{name} {version} is built for NumPy 1, and numpy is {numpy}', mend))
        elif _release(version) < (4, 13, 0) and _release(numpy) >= (2, 3, 0):
            message = f'{name} {version} needs NumPy below 2.3, and numpy is {numpy}'
            found.append(Clash(message, f'pip install {_pinned("numpy")}'))
    return found


def _video(versions: Mapping) -> list[Clash]:
    if not versions.get('mmaction2'):
        return []
    found = []
    _, mmcv = _installed('mmcv', versions)
    if mmcv and _release(mmcv) >= (2, 2, 0):
        message = f'mmaction2 {versions["mmaction2"]} refuses mmcv {mmcv}; `import mmstvit` before it works round that'
        found.append(Clash(message, note=True))
    return found


# ------------------------------------------------------------------------------------------------------ helpers
def _release(version: str) -> tuple[int, int, int]:
    """``'2.2.0rc4+cpu'`` -> ``(2, 2, 0)``."""
    match = re.match(r'\d+(\.\d+)*', version)
    numbers = [int(part) for part in match.group().split('.')] if match else []
    return tuple((numbers + [0, 0, 0])[:3])


def _installed(module: str, versions: Mapping) -> tuple[str, str] | tuple[None, None]:
    return next(((name, versions[name]) for name in LINES[module] if versions.get(name)), (None, None))


def _package(module: str, versions: Mapping) -> str:
    if module in LINES:
        return _installed(module, versions)[0] or LINES[module][0]
    return {'cv2': next((name for name in OPENCV if versions.get(name)), OPENCV[0])}.get(module, module)


def _pinned(package: str) -> str:
    return f'{package}=={TESTED[package]}' if package in TESTED else package


def _is_there(module: str, versions: Mapping) -> bool:
    if module in LINES:
        return bool(_installed(module, versions)[1])
    return any(versions.get(name) for name in (OPENCV if module == 'cv2' else (module,)))


# ------------------------------------------------------------------------------------------------------- output
def _report(versions: Mapping) -> list[str]:
    """One line for each package found, and for each toolbox that is not installed the extra that brings it."""
    rows = [('python', f'{versions["python"]} ({sys.executable})')]
    rows += [(name, versions[name]) for name in ('torch', 'torchvision') if versions.get(name)]
    for module in LINES:
        there = [f'{versions[name]} ({name})' for name in LINES[module] if versions.get(name)]
        text = ', '.join(there) or f"not installed: pip install 'mmstvit[{EXTRAS[module]}]'"
        if module == 'mmcv' and there:
            text += ', operators: its own, compiled' if versions.get('mmcv._ext') else ", operators: torchvision's"
        rows.append((module, text))
    rows += [(name, versions[name]) for name in OTHERS[2:] if versions.get(name)]
    width = max(len(name) for name, _ in rows)
    return [f'  {name:<{width}}  {text}' for name, text in rows]


def _runnable(command: str) -> str:
    """The command with the pip of this Python, whether or not its environment is activated."""
    return re.sub(r'\bpip (?=(un)?install)', f'{sys.executable} -m pip ', command)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 1 where something clashes."""
    argparse.ArgumentParser(
        description='Tell the versions of what mmstvit works with, what clashes, and the command that mends it. The '
        'exit code is 1 where something clashes.',
        epilog='example: mmstvit check-env',
    ).parse_args(argv)
    versions = find_versions()
    print(f'mmstvit {__version__}', *_report(versions), sep='\n', flush=True)
    clashes = find_clashes(versions, find_failures(versions))
    print()
    for clash in sorted(clashes, key=lambda clash: clash.note):
        print(f'{"note" if clash.note else "clash"}: {clash.message}')
        if clash.mend:
            print(f'  {"if wanted" if clash.note else "mend"}: {_runnable(clash.mend)}')
    if any(not clash.note for clash in clashes):
        return 1
    works = ['classification', *(['detection'] if _is_there('mmdet', versions) else [])]
    works += ['video'] if _is_there('mmaction', versions) else []
    print(f'Nothing clashes. Ready: {", ".join(works)}.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
