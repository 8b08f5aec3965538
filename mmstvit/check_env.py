"""``python -m mmstvit.check_env``: installed versions, what clashes, and the command that mends it.

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
from pathlib import Path

from .clashes import LINES, OPENCV, find_clashes, installed
from .compat.requires import EXTRAS, is_found
from .version import __version__

OTHERS = (
    *('torch', 'torchvision', 'numpy', *OPENCV, 'decord', 'av', 'scipy', 'scikit-learn', 'matplotlib', 'timm'),
    *('fvcore', 'pycocotools', 'setuptools', 'wrapt'),
)
# Modules to try, in this order: each needs those before it.
TRIED = ('torch', 'torchvision', 'cv2', 'mmengine', 'mmcv', 'mmcv._ext', 'mmpretrain', 'mmdet', 'mmseg', 'mmaction')


def find_versions() -> dict[str, str | None]:
    """Find the version of every package of interest by its name in pip, ``None`` where it is not installed.

    ``'python'`` is Python itself, ``'mmcv._ext'`` the file of mmcv's compiled operators. Nothing is imported.
    """
    names = [*(name for line in LINES.values() for name in line), *OTHERS]
    versions: dict[str, str | None] = {'python': platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    spec = importlib.util.find_spec('mmcv') if is_found('mmcv') else None
    folders = (spec and spec.submodule_search_locations) or ()
    ops = (path for folder in folders for path in Path(folder).glob('_ext*') if path.suffix in ('.so', '.pyd'))
    versions['mmcv._ext'] = next((path.name for path in ops), None)
    return versions


def find_failures(versions: Mapping[str, str | None]) -> dict[str, str]:
    """Try to import what is installed; return the reason of each failure by module, only the first of a chain."""
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


def _is_there(module: str, versions: Mapping) -> bool:
    if module in LINES:
        return bool(installed(module, versions)[1])
    return any(versions.get(name) for name in (OPENCV if module == 'cv2' else (module,)))


# ------------------------------------------------------------------------------------------------------- output
def _report(versions: Mapping) -> list[str]:
    """Return one line for each package, and for each toolbox that is not installed the extra that brings it."""
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
            # The pip of this Python, whether or not its environment is activated.
            command = re.sub(r'\bpip (?=(un)?install)', f'{sys.executable} -m pip ', clash.mend)
            print(f'  {"if wanted" if clash.note else "mend"}: {command}')
    if any(not clash.note for clash in clashes):
        return 1
    tasks = {'mmdet': 'detection', 'mmseg': 'segmentation', 'mmaction': 'video'}
    works = ['classification', *(task for module, task in tasks.items() if _is_there(module, versions))]
    print(f'Nothing clashes. Ready: {", ".join(works)}.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
