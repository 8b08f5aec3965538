"""Ask for an optional package, or say in one line how to install it."""

import importlib
import importlib.util
from types import ModuleType

# Module -> the extra of mmstvit that installs it. Beside them are what mmengine and mmcv bring.
EXTRAS = {
    **dict.fromkeys(('mmengine', 'mmcv', 'mmpretrain', 'torchvision', 'sklearn', 'matplotlib'), 'cls'),
    **dict.fromkeys(('yaml', 'rich', 'cv2', 'PIL', 'addict', 'yapf', 'termcolor'), 'cls'),
    **dict.fromkeys(('mmdet', 'pycocotools', 'scipy'), 'det'),
    **dict.fromkeys(('mmseg', 'ftfy', 'regex'), 'seg'),
    **dict.fromkeys(('mmaction', 'einops'), 'video'),
    **dict.fromkeys(('fvcore', 'timm', 'tabulate'), 'analysis'),
    **dict.fromkeys(('onnx', 'onnxruntime', 'onnxscript'), 'deploy'),
    **dict.fromkeys(('pytorch_grad_cam', 'tensorboard'), 'vis'),
    'gradio': 'demo',
}
_ALWAYS = ('torch', 'numpy', 'safetensors')  # what mmstvit itself requires


def how_to_install(error: BaseException) -> str | None:
    """Return in one line how to install the package that an import did not find, ``None`` for other exceptions."""
    package = (error.name or '').split('.')[0] if isinstance(error, ModuleNotFoundError) else ''
    if package not in (*EXTRAS, *_ALWAYS) or is_found(package):  # of one that is there, a part is not
        return None
    wanted = f"'mmstvit[{EXTRAS[package]}]'" if package in EXTRAS else package
    return f'{package} is not installed: pip install {wanted}'


def require(package: str, extra: str, what: str = 'this') -> ModuleType:
    """Import an optional package.

    Args:
        package: the module to import, e.g. ``'mmdet'``.
        extra: the extra of mmstvit that installs it.
        what: what it is needed for, said in the message.

    Raises:
        ImportError: it is not installed, and the message names the extra; or it is and does not import, and the
            message gives the reason.
    """
    if not is_found(package):
        raise ImportError(f"{package} is needed for {what}: pip install 'mmstvit[{extra}]'")
    try:
        return importlib.import_module(package)
    except (ImportError, AssertionError) as error:  # the toolboxes assert the versions of mmcv and mmengine
        reason = str(error).strip().split('\n')[0]
        raise ImportError(
            f'{package} is needed for {what} and does not import ({reason}): '
            '`python -m mmstvit.check_env` shows what clashes'
        ) from error


def is_found(package: str) -> bool:
    """Return whether a module can be imported, by what is installed; nothing is imported but its parents."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # its parent is absent, or a module without a spec stands in its place
        return False
