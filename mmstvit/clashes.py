"""Versions that do not go together, and the commands that mend them: the rules of ``mmstvit.check_env``.

Only the standard library is imported here.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# The versions tested together (`requirements/pins.txt`); commands that mend name these.
TESTED = {
    'torch': '2.12.1',
    'torchvision': '0.27.1',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmpretrain': '1.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmsegmentation': '1.4.2',
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
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmaction': ('mmaction2',),
}
OPENCV = ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')
# What each toolbox asserts at import: {package: {module: (from, below)}}.
BOUNDS = {
    'onedl-mmpretrain': {'mmcv': ('2.0.0', '2.4.0'), 'mmengine': ('0.8.3', '1.0.0')},
    'mmpretrain': {'mmcv': ('2.0.0', '2.4.0'), 'mmengine': ('0.8.3', '1.0.0')},
    'onedl-mmdetection': {'mmcv': ('2.0.0', '3.0.0'), 'mmengine': ('0.8.3', '1.0.0')},
    'mmdet': {'mmcv': ('2.0.0', '2.2.0'), 'mmengine': ('0.7.1', '1.0.0')},
    'mmsegmentation': {'mmcv': ('2.0.0', '2.2.0'), 'mmengine': ('0.5.0', '1.0.0')},  # the maintained one asserts none
    # It asserts mmcv < 2.2.0 too, which mmstvit.compat.mmaction2 works round: a note, see find_clashes.
    'mmaction2': {'mmcv': ('2.0.0', '3.0.0'), 'mmengine': ('0.7.1', '1.0.0')},
}
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


def find_clashes(versions: Mapping[str, str | None], failures: Mapping[str, str] | None = None) -> list[Clash]:
    """Find what does not go together in ``versions``.

    Args:
        versions: versions by package, as of ``check_env.find_versions``; an absent key counts as not installed.
        failures: reasons why modules do not import, as of ``check_env.find_failures``.
    """
    failures = dict(failures or {})
    clashes = [
        *_python_and_torch(versions, failures),
        *_lines(versions),
        *_bounds(versions),
        *_compiled_ops(versions, failures),
        *_arrays(versions),
        *_video(versions),
    ]
    if failures and all(clash.note for clash in clashes):
        # A failure that no rule explains: the first one, those after it mostly follow from it.
        module, reason = next(iter(failures.items()))
        mend = f'pip install --force-reinstall --no-deps {_pinned(_package(module, versions))}'
        clashes.append(Clash(f'{module} is installed and does not import: {reason}', mend))
    return clashes


# --------------------------------------------------------------------------------------------------- the rules
def _python_and_torch(versions: Mapping, failures: Mapping) -> Iterator[Clash]:
    python, torch, vision = (versions.get(name) for name in ('python', 'torch', 'torchvision'))
    pair = f'{_pinned("torch")} {_pinned("torchvision")}'
    if python and _release(python) < (3, 10):
        yield Clash(f'Python {python} is below 3.10', 'make env PYTHON=/path/to/python3.11')
    if not torch or not vision:
        missing = ' and '.join(name for name in ('torch', 'torchvision') if not versions.get(name))
        yield Clash(f'no {missing}, which every toolbox needs', f'pip install {pair}')
        return
    major, minor, _ = _release(torch)
    fitting = f'0.{minor + 15}'  # torchvision 0.15 belongs to torch 2.0, 0.16 to 2.1, and so on
    if (major, minor) < (2, 6):
        message = f'torch {torch} is below 2.6: it cannot read checkpoints without running what is in them'
        yield Clash(message, f'pip install {pair}')
    elif major == 2 and _release(vision)[:2] != _release(fitting)[:2]:
        message = f'torchvision {vision} does not fit torch {torch}, which needs torchvision {fitting}'
        yield Clash(message, f'pip install {pair}')
    elif 'torchvision' in failures and 'torch' not in failures:
        message = f'torchvision {vision} is another build than torch {torch}: {failures["torchvision"]}'
        yield Clash(message, f'pip install --force-reinstall {pair}')


def _lines(versions: Mapping) -> Iterator[Clash]:
    for module, names in LINES.items():
        there = [name for name in names if versions.get(name)]
        if len(there) > 1:
            message = f'{" and ".join(f"{name} {versions[name]}" for name in there)} both install the module {module}'
            again = f'pip install --force-reinstall --no-deps {_pinned(there[0])}'
            again = BUILD_OPS if there[0] == 'onedl-mmcv' else again
            yield Clash(message, f'pip uninstall -y {" ".join(there[1:])} && {again}')
        elif not there and module in ('mmengine', 'mmcv', 'mmpretrain'):
            yield Clash(f'no {module}: classification needs it', f'pip install {_pinned(names[0])}')
    name, version = installed('mmengine', versions)
    if not version or name == 'onedl-mmengine':
        return
    if _release(versions.get('setuptools') or '0') >= (82,):
        message = f'{name} {version} needs pkg_resources, which setuptools {versions["setuptools"]} has no more'
        yield Clash(message, "pip install 'setuptools<82'")
    # From 2.6 on torch loads weights alone by default.
    if _release(version) < (0, 10, 8) and versions.get('torch'):
        message = f'{name} {version} loads the checkpoints it writes only in programs that import mmstvit'
        yield Clash(message, f'pip uninstall -y {name} && pip install {_pinned("onedl-mmengine")}', note=True)


def _bounds(versions: Mapping) -> Iterator[Clash]:
    doubled = {name for names in LINES.values() for name in names if sum(bool(versions.get(n)) for n in names) > 1}
    for package, bounds in BOUNDS.items():
        if package in doubled or not versions.get(package):  # the former are reported, and their versions say little
            continue
        for module, (low, below) in bounds.items():
            name, version = installed(module, versions)
            if not name or not version or _release(low) <= _release(version) < _release(below):
                continue
            message = f'{package} {versions[package]} needs {module} >= {low}, < {below}, and {name} is {version}'
            maintained, replaced = LINES[module][0], package
            if name == 'onedl-mmcv' and package in ('mmdet', 'mmsegmentation'):  # its own maintained line takes that
                mend = f'pip install {_pinned(next(names[0] for names in LINES.values() if package in names))}'
            elif name == maintained or package == 'mmaction2':
                mend = BUILD_OPS if module == 'mmcv' else f'pip install {_pinned(maintained)}'
                replaced = name if name != maintained else ''
            else:
                mend, replaced = f"pip install '{name}>={low},<{below}'", ''
            yield Clash(message, f'pip uninstall -y {replaced} && {mend}' if replaced else mend)


def _compiled_ops(versions: Mapping, failures: Mapping) -> Iterator[Clash]:
    name, version = installed('mmcv', versions)
    detection, _ = installed('mmdet', versions)
    mend = BUILD_OPS if name == 'onedl-mmcv' else f'pip uninstall -y {name} && {BUILD_OPS}'
    if not version:
        return
    if detection and name == 'mmcv-lite':
        yield Clash(f'mmcv-lite {version} has no mmcv.ops, which {detection} needs', mend)
    elif detection and not versions.get('mmcv._ext'):
        message = (
            f'{name} {version} has no compiled operators of its own: NMS, RoIAlign, RoIPool and the focal loss are '
            "torchvision's, others raise where they are called"
        )
        yield Clash(message, mend, note=True)
    elif '_ext' in ''.join(failures) and not {'torch', 'cv2', 'mmengine', 'mmcv'} & set(failures):
        message = f"{name}'s compiled operators were built for another PyTorch than {versions.get('torch')}"
        yield Clash(f'{message}: {failures["mmcv._ext"]}', mend)


def _arrays(versions: Mapping) -> Iterator[Clash]:
    numpy = versions.get('numpy')
    there = {name: versions[name] for name in OPENCV if versions.get(name)}
    if not numpy:
        yield Clash('no numpy', f'pip install {_pinned("numpy")}')
        return
    best = TESTED['opencv-python']  # imaug, which mmdet brings, needs OpenCV below 4.13
    if len(set(there.values())) > 1:
        message = f'{" and ".join(f"{name} {version}" for name, version in there.items())} share the module cv2'
        mend = f'pip install --force-reinstall --no-deps {" ".join(f"{name}=={best}" for name in there)}'
        yield Clash(f'{message} and differ in version', mend)
    for name, version in there.items():
        if _release(version) < (4, 10) and _release(numpy) >= (2,):
            message = f'{name} {version} is built for NumPy 1, and numpy is {numpy}'
            yield Clash(message, f"pip install '{name}=={best}'")
        elif _release(version) < (4, 13) and _release(numpy) >= (2, 3):
            message = f'{name} {version} needs NumPy below 2.3, and numpy is {numpy}'
            yield Clash(message, f'pip install {_pinned("numpy")}')


def _video(versions: Mapping) -> Iterator[Clash]:
    _, mmcv = installed('mmcv', versions)
    if versions.get('mmaction2') and mmcv and _release(mmcv) >= (2, 2):
        message = f'mmaction2 {versions["mmaction2"]} refuses mmcv {mmcv}; `import mmstvit` before it works round that'
        yield Clash(message, note=True)


# ------------------------------------------------------------------------------------------------------ helpers
def _release(version: str) -> tuple[int, int, int]:
    """``'2.2.0rc4+cpu'`` -> ``(2, 2, 0)``."""
    numbers = re.match(r'(\d*)\.?(\d*)\.?(\d*)', version)
    major, minor, patch = (int(number or 0) for number in numbers.groups())  # type: ignore[union-attr]
    return major, minor, patch


def installed(module: str, versions: Mapping) -> tuple[str, str] | tuple[None, None]:
    """Return the package of a module and its version, ``None`` where there is none."""
    return next(((name, versions[name]) for name in LINES[module] if versions.get(name)), (None, None))


def _package(module: str, versions: Mapping) -> str:
    if module in LINES:
        return installed(module, versions)[0] or LINES[module][0]
    return next((name for name in OPENCV if versions.get(name)), OPENCV[0]) if module == 'cv2' else module


def _pinned(package: str) -> str:
    return f'{package}=={TESTED[package]}' if package in TESTED else package
