"""The decisions of tools/setup_env.py: nothing here installs anything."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location('setup_env', ROOT / 'tools' / 'setup_env.py')
setup_env = importlib.util.module_from_spec(spec)
spec.loader.exec_module(setup_env)

CPU = 'torch==2.11.0 torchvision==0.26.0'
TESTED = ['torch==2.12.1', 'torchvision==0.27.1']


@pytest.fixture
def root(tmp_path):
    """A copy of the files that a set-up depends on."""
    (tmp_path / 'requirements').mkdir()
    for name in ('requirements/pins.txt', 'requirements/light.txt', 'requirements/full.txt', 'setup.py'):
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def finished(level, choice, root, python='3.11'):
    return {'stamp': setup_env.make_stamp(level, choice, python, root)}


def test_full_set_up_satisfies_light_and_not_the_reverse(root):
    assert setup_env.satisfied(finished('full', '', root), 'light', '', '3.11', root)
    assert setup_env.satisfied(finished('light', '', root), 'light', '', '3.11', root)
    assert not setup_env.satisfied(finished('light', '', root), 'full', '', '3.11', root)
    assert not setup_env.satisfied({}, 'light', '', '3.11', root)
    assert not setup_env.satisfied({'busy': True, 'stamp': None}, 'light', '', '3.11', root)


def test_stamp_changes_with_torch_choice(root):
    assert setup_env.make_stamp('light', '', '3.11', root) != setup_env.make_stamp('light', CPU, '3.11', root)
    assert not setup_env.satisfied(finished('light', '', root), 'light', CPU, '3.11', root)
    assert setup_env.satisfied(finished('light', CPU, root), 'light', CPU, '3.11', root)
    # Without a choice the PyTorch that is there will do.
    assert setup_env.satisfied(finished('light', CPU, root), 'light', '', '3.11', root)


def test_stamp_changes_with_python_and_pins(root):
    state = finished('light', '', root)
    assert not setup_env.satisfied(state, 'light', '', '3.12', root)
    pins = root / 'requirements/pins.txt'
    pins.write_text(pins.read_text().replace('numpy==2.2.6', 'numpy==2.2.5'))
    assert not setup_env.satisfied(state, 'light', '', '3.11', root)


def test_requirements_of_full_do_not_undo_light(root):
    light, full = finished('light', '', root), finished('full', '', root)
    (root / 'requirements/full.txt').write_text('-r light.txt\n')
    assert setup_env.satisfied(light, 'light', '', '3.11', root)
    assert not setup_env.satisfied(full, 'full', '', '3.11', root)


@pytest.mark.parametrize(
    'found, torch, index, recorded, wanted',
    [
        (None, '', '', '', TESTED),
        ('2.12.1+cu130', '', '', '', []),
        ('2.5.1', '', '', '', []),  # another one within the range is kept
        ('2.3.1', '', '', '', TESTED),  # below it
        ('2.11.0', '', '', CPU, []),  # chosen before, no choice now
        ('2.11.0', CPU, '', CPU, []),
        ('2.12.1', CPU, '', '', CPU.split()),
        ('2.12.1', 'torch==2.11.0', '', '', ['torch==2.11.0', 'torchvision']),
        ('2.12.1', '', 'file:///cpu', '', TESTED),
        ('2.12.1+cpu', '', 'file:///cpu', 'from file:///cpu', []),
        (None, 'torch==2.11.0', '', 'torch==2.11.0', ['torch==2.11.0', 'torchvision']),  # recorded, and broken since
    ],
)
def test_torch_to_install(found, torch, index, recorded, wanted):
    assert setup_env.torch_to_install(found, torch, index, recorded) == wanted


def test_constraints_hold_the_torch_that_is_there(tmp_path):
    setup = setup_env.Setup('light', tmp_path)
    setup.write_constraints({'torch': '2.11.0', 'torchvision': '0.26.0+cpu', 'numpy': '1.0'})
    lines = setup.constraints.read_text().splitlines()
    assert [line for line in lines if line.startswith('torch')] == ['torch==2.11.0', 'torchvision==0.26.0+cpu']
    assert 'numpy==2.2.6' in lines


def test_wheel_is_kept_by_torch_and_python(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    folder = setup_env.wheel_folder('2.12.1+cu130', 'cp311')
    assert folder == tmp_path / 'mmstvit/wheels/2.12.1+cu130-cp311'
    assert setup_env.wheel_folder('2.12.1+cu130', 'cp311', cuda=True) != folder
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert setup_env.wheel_folder('2.12.1', 'cp311') == tmp_path / '.cache/mmstvit/wheels/2.12.1-cp311'


def test_cached_wheel_is_of_the_pinned_version(tmp_path):
    (tmp_path / 'building-x').mkdir()
    (tmp_path / 'onedl_mmcv-1.0.0-cp311-cp311-linux_x86_64.whl').touch()
    assert setup_env.cached_wheel(tmp_path) is None
    wheel = tmp_path / f'onedl_mmcv-{setup_env.pins()["onedl-mmcv"]}-cp311-cp311-linux_x86_64.whl'
    wheel.touch()
    assert setup_env.cached_wheel(tmp_path) == wheel


def test_interrupted_build_leaves_no_wheel(tmp_path, monkeypatch):
    def interrupted(self, command, *args, **env):
        Path(args[args.index('-w') + 1], 'onedl_mmcv-half.whl').touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(setup_env.Setup, 'pip', interrupted)
    folder = tmp_path / 'wheels'
    with pytest.raises(KeyboardInterrupt):
        setup_env.Setup('full', tmp_path).build_wheel('2.3.6', folder, cuda=False)
    assert list(folder.iterdir()) == []


def test_python_outside_the_range():
    setup_env.check_python((3, 10))
    with pytest.raises(setup_env.SetupError, match=r'This is Python 3\.9; .*PYTHON='):
        setup_env.check_python((3, 9))
    with pytest.raises(setup_env.SetupError, match='PYTHON='):
        setup_env.check_python((3, 14))


def test_python_without_venv(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ensurepip', None)
    with pytest.raises(setup_env.SetupError, match='apt install python3.11-venv'):
        setup_env.check_python((3, 11))


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv('CXX', raising=False)
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(setup_env.SetupError, match=r'no C\+\+ compiler: install one .*apt install g\+\+'):
        setup_env.check_compiler()
    monkeypatch.setenv('CXX', 'my-compiler -m64')
    with pytest.raises(setup_env.SetupError, match='my-compiler that CXX names'):
        setup_env.check_compiler()
    compiler = tmp_path / 'g++'
    compiler.touch(mode=0o755)
    monkeypatch.delenv('CXX')
    (tmp_path / 'Python.h').touch()
    setup_env.check_compiler(str(tmp_path))
    with pytest.raises(setup_env.SetupError, match='headers of Python are missing'):
        setup_env.check_compiler(str(tmp_path / 'nowhere'))


def test_full_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(setup_env.shutil, 'disk_usage', lambda path: SimpleNamespace(free=4e9))
    with pytest.raises(setup_env.SetupError, match=r'has 4\.0 GB free and the set-up needs 8'):
        setup_env.check_disk(tmp_path / 'not' / 'yet', 'light', 'cuda')
    setup_env.check_disk(tmp_path, 'light', 'cpu')


def package(site, name, files):
    info = site / f'{name}-1.0.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').touch()
    for file, text in files.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(text)
    rows = [f'{file},sha256=x,{len(text)}' for file, text in files.items()]
    (info / 'RECORD').write_text('\n'.join([*rows, f'{info.name}/RECORD,,']))
    return info


def test_packages_left_incomplete_are_found(tmp_path):
    site = tmp_path / 'lib/python3.11/site-packages'
    whole = package(site, 'whole', {'whole/a.py': 'abc', 'whole/a.pyc': 'abc'})
    cut = package(site, 'cut', {'cut/a.py': 'abc'})
    gone = package(site, 'gone', {'gone/a.py': 'abc'})
    unrecorded = package(site, 'unrecorded', {'unrecorded/a.py': 'abc'})
    assert setup_env.damaged(site) == []
    (site / 'whole/a.pyc').write_text('compiled anew')
    (site / 'cut/a.py').write_text('a')
    (site / 'gone/a.py').unlink()
    (unrecorded / 'RECORD').unlink()
    (site / '~own').mkdir()
    assert setup_env.damaged(site) == sorted([cut, gone, unrecorded])
    setup_env.Setup('light', tmp_path).repair()
    assert sorted(site.glob('*.dist-info')) == [whole]  # pip installs the others again
    assert not (site / '~own').exists()


def test_two_packages_with_the_same_file_are_whole(tmp_path):
    first = package(tmp_path, 'first', {'cv2/cv2.so': 'short'})
    package(tmp_path, 'second', {'cv2/cv2.so': 'longer one'})
    assert setup_env.damaged(tmp_path) == []
    (tmp_path / 'cv2/cv2.so').write_text('')
    assert first in setup_env.damaged(tmp_path)


@pytest.mark.parametrize(
    'output, text',
    [
        ('ERROR: [Errno 28] No space left on device', 'disk is full'),
        ('pip._vendor.urllib3.exceptions.ReadTimeoutError: Read timed out.', 'check network and proxy'),
        ('ERROR: No matching distribution found for torch==9.9', 'no torch==9.9 for this Python'),
        ('g++: fatal error: Killed signal terminated program cc1plus', 'MAX_JOBS=1'),
        ('something else', 'run the same command again'),
    ],
)
def test_advice(output, text):
    assert text in setup_env.advice(output)


def test_failing_command_gives_its_last_lines_and_exit_code_1(tmp_path, monkeypatch, capsys):
    def fail(self):
        self.call(sys.executable, '-c', 'print("line"); print("No matching distribution found for x"); exit(3)')

    monkeypatch.setattr(setup_env.Setup, 'run', fail)
    assert setup_env.main(['light', '--venv', str(tmp_path)]) == 1
    error = capsys.readouterr().err.splitlines()
    assert error[:2] == ['line', 'No matching distribution found for x']
    assert error[2].startswith('The set-up stopped: the package index has no x for this Python')
    assert str(tmp_path / 'mmstvit-setup.log') in error[2]


def test_folder_that_is_no_environment_is_left_alone(tmp_path, capsys):
    (tmp_path / 'thesis.tex').write_text('years of work')
    assert setup_env.main(['light', '--venv', str(tmp_path)]) == 1
    assert 'is no virtual environment' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']
