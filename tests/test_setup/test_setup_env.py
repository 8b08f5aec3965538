"""tools/setup_env.py in an empty environment, with the commands that it would run recorded in place of run."""

import importlib.util
import shutil
import subprocess
import sys
import venv as environments
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location('setup_env', ROOT / 'tools' / 'setup_env.py')
setup_env = importlib.util.module_from_spec(spec)
spec.loader.exec_module(setup_env)


@pytest.fixture
def case(tmp_path, monkeypatch):
    """``venv`` of Python alone, ``root`` of a checkout, and ``run(...)``, which returns the commands of a set-up."""
    root, venv = tmp_path / 'checkout', tmp_path / 'venv'
    shutil.copytree(ROOT / 'requirements', root / 'requirements')
    shutil.copy(ROOT / 'setup.py', root)
    environments.create(venv, symlinks=True)
    site = next(venv.glob('lib/python*/site-packages'))
    monkeypatch.setattr(setup_env, 'ROOT', root)
    monkeypatch.setattr(setup_env, 'REQUIREMENTS', root / 'requirements')

    def run(torch='', index='', compiled=False, failing=()):
        commands = []

        def step(self, what, *command, fatal=True):
            commands.append(' '.join(map(str, command)))
            if any(word in commands[-1] for word in failing):
                return False if fatal is False else sys.exit('failed')
            if ' torch==' in commands[-1]:
                wanted = next(word for word in commands[-1].split() if word.startswith('torch=='))
                add(site, 'torch', wanted.removeprefix('torch=='))
                add(site, 'torchvision', '0.1')
            return True

        with monkeypatch.context() as patch:
            patch.setattr(setup_env.Setup, 'step', step)
            setup_env.Setup(venv, torch, index, compiled).run()
        return commands

    return SimpleNamespace(root=root, venv=venv, site=site, run=run)


def add(site, package, version):
    """Let a package be installed."""
    for old in site.glob(f'{package}-*.dist-info'):
        shutil.rmtree(old)
    info = site / f'{package}-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n')


def test_finished_set_up_runs_nothing(case):
    commands = case.run()
    assert any('torch==2.12.1 torchvision==0.27.1' in command for command in commands)
    assert any('onedl-mmcv==2.3.6' in command for command in commands)
    assert commands[-1] == 'mmstvit.check_env'
    assert case.run() == []


@pytest.mark.parametrize('file', ['requirements/pins.txt', 'requirements/environment.txt', 'setup.py'])
def test_changed_requirements_are_installed(case, file):
    case.run()
    with (case.root / file).open('a') as changed:
        changed.write('# changed\n')
    commands = case.run()
    assert commands[-1] == 'mmstvit.check_env' and not any('torch==' in command for command in commands)
    assert case.run() == []


def test_torch_that_is_there_is_kept(case):
    """And nothing that is installed after it moves it."""
    add(case.site, 'torch', '2.9.0+cu126')
    add(case.site, 'torchvision', '0.24.0+cu126')
    assert not any('torch==' in command for command in case.run())
    lines = (case.venv / 'constraints.txt').read_text().splitlines()
    assert [line for line in lines if line.startswith('torch')] == ['torch==2.9.0+cu126', 'torchvision==0.24.0+cu126']
    assert 'numpy==2.2.6' in lines


def test_choice_of_torch(case):
    """It is installed over another one, and stays where none is chosen later."""
    case.run()
    commands = case.run(torch='torch==2.11.0 torchvision==0.26.0')
    assert sum('torch==2.11.0 torchvision==0.26.0' in command for command in commands) == 1
    assert case.run() == [] and case.run(torch='torch==2.11.0 torchvision==0.26.0') == []
    assert any(command.endswith('torch==2.10.0 torchvision') for command in case.run(torch='torch==2.10.0'))


def test_index_of_torch(case):
    """It may have a build of the version that is there, and PyTorch alone; the other packages come from elsewhere."""
    case.run()
    torch, packages, mmcv = case.run(index='file:///cpu')[1:4]
    assert '--index-url file:///cpu --no-deps --force-reinstall torch==2.12.1' in torch
    assert '--extra-index-url file:///cpu' in packages and 'environment.txt' in packages
    assert 'file:///cpu' not in mmcv


def test_interrupted_set_up_installs_everything_again(case):
    with pytest.raises(SystemExit):
        case.run(failing=['environment.txt'])
    commands = [command for command in case.run() if ' install ' in command and '--quiet uv' not in command]
    assert len(commands) >= 4 and all('--force-reinstall' in command for command in commands)
    assert case.run() == []


def test_pip_where_uv_fails(case):
    commands = case.run(failing=['uv pip'])
    installs = [command for command in commands if ' install ' in command][1:]
    for of_uv, of_pip in zip(installs[::2], installs[1::2], strict=True):
        # pip compiles bytecode, and looks in all indexes, by itself.
        of_uv = of_uv.replace(' --compile-bytecode --index-strategy unsafe-best-match', '')
        assert of_uv == f'uv {of_pip}' and of_pip.startswith('pip install ')


def test_index_of_torch_with_other_packages(case, tmp_path, capsys):
    """It may have, in another version, what is pinned and on the usual index: uv installs that."""
    for index, version in dict(usual='2.0', torch='1.0').items():
        name, info = f'small-{version}-py3-none-any.whl', f'small-{version}.dist-info'
        page = tmp_path / index / 'small' / 'index.html'
        page.parent.mkdir(parents=True)
        page.write_text(f'<a href="{name}">{name}</a>')
        with zipfile.ZipFile(page.parent / name, 'w') as wheel:
            wheel.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\nName: small\nVersion: {version}\n')
            wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
            wheel.writestr(f'{info}/RECORD', '')
    setup = setup_env.Setup(case.venv, '', '', False)
    setup.python = sys.executable
    usual, torch = ((tmp_path / index).as_uri() for index in ('usual', 'torch'))
    setup.install('small', '--target', tmp_path, '--index-url', usual, '--extra-index-url', torch, 'small==2.0')
    assert (tmp_path / 'small-2.0.dist-info').is_dir() and 'uv failed' not in capsys.readouterr().out


def test_compiled_operators(case):
    case.run()
    assert '--no-build-isolation' in case.run(compiled=True)[-2]
    assert case.run() == []  # they are wanted no less


def test_failing_step_shows_the_end_of_its_output(case, capsys):
    setup = setup_env.Setup(case.venv, '', '', False)
    fault = ('timeit', '-n', 1, '-r', 1, '[print(f"line {i}.") for i in range(20)]; raise SystemExit(3)')
    with pytest.raises(SystemExit) as stop:
        setup.step('a fault', *fault)
    assert 'run the same command again' in str(stop.value) and str(setup.log) in str(stop.value)
    shown = capsys.readouterr().err
    assert 'line 19.' in shown and 'line 1.' not in shown
    assert setup.step('a fault', *fault, fatal=False) is False


def test_folder_that_is_no_environment_is_left_alone(tmp_path):
    (tmp_path / 'thesis.tex').write_text('years of work')
    with pytest.raises(SystemExit, match='is no virtual environment: choose another folder with VENV='):
        setup_env.Setup(tmp_path, '', '', False).run()
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_original_packages_are_not_written_over(case):
    add(case.site, 'mmcv', '2.1.0')
    with pytest.raises(SystemExit, match='has mmcv, .* VENV='):
        case.run()
    assert (case.site / 'mmcv-2.1.0.dist-info').is_dir()


def test_other_pythons(case, monkeypatch):
    monkeypatch.setattr(setup_env.sys, 'version_info', (3, 9, 1))
    with pytest.raises(SystemExit, match=r'this is python3\.9: .*PYTHON='):
        case.run()
    monkeypatch.setattr(setup_env.sys, 'version_info', (3, 13 if sys.version_info[1] != 13 else 12, 1))
    with pytest.raises(SystemExit, match='was made with another Python .* VENV='):
        case.run()


def test_help_names_all_options():
    command = [sys.executable, ROOT / 'tools' / 'setup_env.py', '--help']
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / 'Makefile').read_text()
    for option in ('--venv', '--torch', '--torch-index', '--ops'):
        assert option in text and f"{option} '$(" in makefile
