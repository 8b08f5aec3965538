"""The wheel and the source archive hold configs, tools and the model index, and work from another folder."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from fresh_python import run_fresh

ROOT = Path(__file__).resolve().parents[2]
# What packaging reads: building in a copy leaves the checkout without build files.
SOURCES = ('mmstvit', 'configs', 'tools', 'tests', 'projects', 'requirements')
FILES = ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'README.md', 'model-index.yml')


def run(*command, **options):
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build_wheel(source, folder):
    """By the hook that pip calls."""
    run(sys.executable, '-c', f'from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})', cwd=source)
    return next(folder.glob('mmstvit-*.whl'))


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp('source')
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('.mim'))
    for name in FILES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)
    # Left behind by use, and no part of the package.
    (folder / 'configs' / 'digits' / '__pycache__').mkdir(exist_ok=True)
    (folder / 'configs' / 'digits' / '__pycache__' / 'old.cpython-311.pyc').touch()
    (folder / 'tools' / 'weights.pth').touch()
    return folder


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    return build_wheel(source, tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp('installed')
    run(sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-index', '--target', folder, wheel)
    return folder


def expected(kind, suffixes=('.py', '.md', '.yml', '.sh')):
    files = [path for path in (ROOT / kind).rglob('*') if path.suffix in suffixes and '__pycache__' not in path.parts]
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_wheel_holds_configs_tools_and_model_index(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    mim = {name.removeprefix('mmstvit/.mim/') for name in names if name.startswith('mmstvit/.mim/')}
    assert 'model-index.yml' in mim
    assert expected('configs') and expected('configs') <= mim
    assert 'tools/setup_env.py' in mim and expected('tools') <= mim
    assert mim == expected('configs') | expected('tools') | {'model-index.yml'}
    assert not [name for name in names if name.startswith(('tests/', 'tools/', 'configs/', 'projects/', 'build/'))]
    assert [name for name in names if name.endswith('LICENSE')]


def test_wheel_holds_every_module(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert expected('mmstvit', ('.py',)) <= {name for name in names if '/.mim/' not in name}
    assert 'mmstvit/py.typed' in names  # type checkers read the hints


def test_source_archive_gives_the_same_wheel(source, wheel, tmp_path):
    code = f'from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})'
    run(sys.executable, '-c', code, cwd=source)
    with tarfile.open(next(tmp_path.glob('*.tar.gz'))) as archive:
        archive.extractall(tmp_path / 'unpacked', filter='data')
    unpacked = next((tmp_path / 'unpacked').iterdir())
    (tmp_path / 'wheel').mkdir()
    again = build_wheel(unpacked, tmp_path / 'wheel')
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_installed_wheel_works_from_another_folder(installed, tmp_path):
    code = (
        f'import os, sys\nos.chdir({str(tmp_path)!r})\nsys.path.insert(0, {str(installed)!r})\n'
        'import mmstvit, mmpretrain, torch\n'
        'from mmpretrain.registry import MODELS\n'
        'from mmengine.config import Config\n'
        'from mmstvit.paths import package_data\n'
        'print(mmstvit.__file__)\n'
        'model = MODELS.build(dict(type="mmstvit.STViT", arch="tiny", img_size=64)).eval()\n'
        'print(tuple(model(torch.zeros(1, 3, 64, 64))[-1].shape))\n'
        'print(package_data())\n'
        'config = next((package_data() / "configs").rglob("stvit*.py"))\n'
        'print(Config.fromfile(config).model.backbone.type)\n'
    )
    output = run_fresh(code).splitlines()
    file, shape, data, backbone = output[-4:]
    assert file == str(installed / 'mmstvit' / '__init__.py')
    assert shape == '(1, 192)'
    assert data == str(installed / 'mmstvit' / '.mim')
    assert 'STViT' in backbone


def test_editable_build_links_to_the_checkout(source, tmp_path):
    checkout = tmp_path / 'checkout'
    shutil.copytree(source, checkout)
    code = f'from setuptools import build_meta; build_meta.build_editable({str(tmp_path)!r})'
    run(sys.executable, '-c', code, cwd=checkout)
    mim = checkout / 'mmstvit' / '.mim'
    assert (mim / 'configs').is_symlink() and (mim / 'configs').resolve() == (checkout / 'configs').resolve()
    assert (mim / 'model-index.yml').resolve() == (checkout / 'model-index.yml').resolve()
