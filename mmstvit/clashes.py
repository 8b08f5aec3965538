"""Versions that do not go together, and the commands that mend them: the rules of ``mmstvit.check_env``.

Only the standard library is imported here.
"""

import re
from collections.abc import Mapping
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
    if not any(not clash.note for clash in clashes):
        # A failure that no rule explains: the first one, those after it mostly follow from it.
        for module, reason in list(failures.items())[:1]:
            package = _package(module, versions)
            mend = f'pip install --force-reinstall --no-deps {_pinned(package)}'
            clashes.append(Clash(f'{module} is installed and does not import: {reason}', mend))
    return clashes


# --------------------------------------------------------------------------------------------------- the rules
def _python_and_torch(versions: Mapping, failures: Mapping) -> list[Clash]:
    clashes = []
    pair = f'pip install {_pinned("torch")} {_pinned("torchvision")}'
    if versions.get('python') and _release(versions['python']) < (3, 10, 0):
        clashes.append(Clash(f'Python {versions["python"]} is below 3.10', 'make env PYTHON=/path/to/python3.11'))
    torch, vision = versions.get('torch'), versions.get('torchvision')
    if not torch or not vision:
        missing = ' and '.join(name for name in ('torch', 'torchvision') if not versions.get(name))
        return [*clashes, Clash(f'no {missing}, which every toolbox needs', pair)]
    if _release(torch) < (2, 6, 0):
        message = f'torch {torch} is below 2.6: it cannot read checkpoints without running what is in them'
        return [*clashes, Clash(message, pair)]
    # torchvision 0.15 belongs to torch 2.0, 0.16 to 2.1, and so on.
    fitting = f'0.{_release(torch)[1] + 15}'
    if _release(torch)[0] == 2 and _release(vision)[:2] != _release(f'{fitting}.0')[:2]:
        clashes.append(
            Clash(f'torchvision {vision} does not fit torch {torch}, which needs torchvision {fitting}', pair)
        )
    elif 'torchvision' in failures and 'torch' not in failures:
        message = f'torchvision {vision} is another build than torch {torch}: {failures["torchvision"]}'
        clashes.append(Clash(message, f'pip install --force-reinstall {pair[len("pip install ") :]}'))
    return clashes


def _lines(versions: Mapping) -> list[Clash]:
    clashes = []
    for module, names in LINES.items():
        there = [name for name in names if versions.get(name)]
        if len(there) > 1:
            message = f'{" and ".join(f"{name} {versions[name]}" for name in there)} both install the module {module}'
            keep = there[0]
            mend = f'pip uninstall -y {" ".join(there[1:])} && '
            mend += BUILD_OPS if keep == 'onedl-mmcv' else f'pip install --force-reinstall --no-deps {_pinned(keep)}'
            clashes.append(Clash(message, mend))
        elif not there and module in ('mmengine', 'mmcv', 'mmpretrain'):
            clashes.append(Clash(f'no {module}: classification needs it', f'pip install {_pinned(names[0])}'))
    original = versions.get('mmengine') or versions.get('mmengine-lite')
    if original and not versions.get('onedl-mmengine'):
        name = 'mmengine' if versions.get('mmengine') else 'mmengine-lite'
        if _release(versions.get('setuptools') or '0') >= (82, 0, 0):
            message = f'{name} {original} needs pkg_resources, which setuptools {versions["setuptools"]} has no more'
            clashes.append(Clash(message, "pip install 'setuptools<82'"))
        # From 2.6 on torch loads weights alone by default.
        if _release(original) < (0, 10, 8) and versions.get('torch'):
            message = f'{name} {original} loads the checkpoints it writes only in programs that import mmstvit'
            mend = f'pip uninstall -y {name} && pip install {_pinned("onedl-mmengine")}'
            clashes.append(Clash(message, mend, note=True))
    return clashes


def _bounds(versions: Mapping) -> list[Clash]:
    clashes = []
    doubled = {name for names in LINES.values() for name in names if sum(bool(versions.get(n)) for n in names) > 1}
    for package, bounds in BOUNDS.items():
        if package in doubled:  # reported already, and its version says little
            continue
        for module, (low, below) in bounds.items():
            name, version = installed(module, versions)
            if not versions.get(package) or not version or _release(low) <= _release(version) < _release(below):
                continue
            message = f'{package} {versions[package]} needs {module} >= {low}, < {below}, and {name} is {version}'
            if name == LINES[module][0] or package == 'mmaction2':
                mend = BUILD_OPS if module == 'mmcv' else f'pip install {_pinned(LINES[module][0])}'
                if name != LINES[module][0]:
                    mend = f'pip uninstall -y {name} && {mend}'
            else:
                mend = f"pip install '{name}>={low},<{below}'"
            maintained = {'mmdet': 'onedl-mmdetection', 'mmsegmentation': 'onedl-mmsegmentation'}.get(package)
            if maintained and module == 'mmcv' and name == 'onedl-mmcv':
                mend = f'pip uninstall -y {package} && pip install {_pinned(maintained)}'
            clashes.append(Clash(message, mend))
    return clashes


def _compiled_ops(versions: Mapping, failures: Mapping) -> list[Clash]:
    name, version = installed('mmcv', versions)
    detection, _ = installed('mmdet', versions)
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
    clashes = []
    numpy = versions.get('numpy')
    there = {name: versions[name] for name in OPENCV if versions.get(name)}
    if not numpy:
        return [Clash('no numpy', f'pip install {_pinned("numpy")}')]
    if len(set(there.values())) > 1:
        message = f'{" and ".join(f"{name} {version}" for name, version in there.items())} share the module cv2'
        # imaug, which mmdet brings, needs OpenCV below 4.13.
        best = TESTED['opencv-python']
        mend = f'pip install --force-reinstall --no-deps {" ".join(f"{name}=={best}" for name in there)}'
        clashes.append(Clash(f'{message} and differ in version', mend))
    for name, version in there.items():
        if _release(version) < (4, 10, 0) and _release(numpy) >= (2, 0, 0):
            mend = f"pip install '{name}=={TESTED['opencv-python']}'"
            clashes.append(Clash(f'{name} {version} is built for NumPy 1, and numpy is {numpy}', mend))
        elif _release(version) < (4, 13, 0) and _release(numpy) >= (2, 3, 0):
            message = f'{name} {version} needs NumPy below 2.3, and numpy is {numpy}'
            clashes.append(Clash(message, f'pip install {_pinned("numpy")}'))
    return clashes


def _video(versions: Mapping) -> list[Clash]:
    if not versions.get('mmaction2'):
        return []
    clashes = []
    _, mmcv = installed('mmcv', versions)
    if mmcv and _release(mmcv) >= (2, 2, 0):
        message = f'mmaction2 {versions["mmaction2"]} refuses mmcv {mmcv}; `import mmstvit` before it works round that'
        clashes.append(Clash(message, note=True))
    return clashes


# ------------------------------------------------------------------------------------------------------ helpers
def _release(version: str) -> tuple[int, int, int]:
    """``'2.2.0rc4+cpu'`` -> ``(2, 2, 0)``."""
    match = re.match(r'\d+(\.\d+)*', version)
    numbers = [int(part) for part in match.group().split('.')] if match else []
    return tuple((numbers + [0, 0, 0])[:3])


def installed(module: str, versions: Mapping) -> tuple[str, str] | tuple[None, None]:
    """Return the package of a module and its version, ``None`` where there is none."""
    return next(((name, versions[name]) for name in LINES[module] if versions.get(name)), (None, None))


def _package(module: str, versions: Mapping) -> str:
    if module in LINES:
        return installed(module, versions)[0] or LINES[module][0]
    return {'cv2': next((name for name in OPENCV if versions.get(name)), OPENCV[0])}.get(module, module)


def _pinned(package: str) -> str:
    return f'{package}=={TESTED[package]}' if package in TESTED else package
