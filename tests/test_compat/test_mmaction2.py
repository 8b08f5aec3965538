"""The workaround for mmaction2's import: it helps where it is needed and does nothing elsewhere."""

import importlib.metadata
import subprocess
import sys

import pytest
from fresh_python import run_fresh


def run(code):
    """The output of Python code in a new process."""
    return run_fresh(code).splitlines()


def fake(folder, init, **modules):
    """A package called mmaction, found before the installed one."""
    package = folder / 'mmaction'
    package.mkdir()
    (package / '__init__.py').write_text(init)
    for name, text in modules.items():
        (package / f'{name}.py').write_text(text)
    return f'import sys\nsys.path.insert(0, {str(folder)!r})\n'


@pytest.fixture
def installed():
    pytest.importorskip('mmcv')
    try:
        return importlib.metadata.version('mmaction2')
    except importlib.metadata.PackageNotFoundError:
        pytest.skip('mmaction2 is not installed')


def test_import_with_the_fault(installed):
    """The real package: it fails alone, works with mmstvit, mmcv keeps its version, the missing model is not built."""
    import mmcv

    assert installed == '1.2.0', 'a new mmaction2: see whether the workaround can go'
    alone = run('try:\n    import mmaction.models\nexcept Exception as error:\n    print(error)\n')
    assert 'MMCV' in alone[-1] or 'drn' in alone[-1]
    code = (
        'import mmstvit\n'
        'import sys\n'
        'assert "mmaction" not in sys.modules and "mmcv" not in sys.modules\n'  # nothing is imported unasked
        'import mmaction.models, mmaction.datasets, mmcv\n'
        'from mmaction.registry import MODELS\n'
        'print(mmcv.__version__, MODELS.get("SwinTransformer3D").__name__, mmaction.__version__)\n'
        'from mmaction.models.localizers.drn.drn import DRN\n'
        'try:\n'
        '    DRN(1, a=2)\n'
        'except NotImplementedError as error:\n'
        '    print(error)\n'
    )
    assert run(code)[-2:] == [
        f'{mmcv.__version__} SwinTransformer3D {installed}',
        'DRN is missing from the released mmaction2 wheel',
    ]


def test_package_without_faults_is_untouched(tmp_path):
    """It runs once, sees mmcv's real version, and its own drn is taken."""
    import mmcv

    start = fake(
        tmp_path,
        'import mmcv\nRUNS = globals().get("RUNS", 0) + 1\nSEEN = mmcv.__version__\n',
        other='VALUE = 5\n',
    )
    drn = tmp_path / 'mmaction' / 'models' / 'localizers' / 'drn'
    drn.mkdir(parents=True)
    for folder in (drn, drn.parent, drn.parent.parent):
        (folder / '__init__.py').write_text('')
    (drn / 'drn.py').write_text('class DRN: real = True\n')
    code = start + (
        'import mmstvit, mmaction, mmcv\n'
        'from mmaction.other import VALUE\n'
        'from mmaction.models.localizers.drn.drn import DRN\n'
        'import importlib.resources, inspect\n'
        'text = importlib.resources.files("mmaction").joinpath("other.py").read_text().strip()\n'
        'print(mmaction.RUNS, mmaction.SEEN == mmcv.__version__, VALUE, DRN.real, text, mmaction.__file__)\n'
        'print(inspect.getsource(mmaction).splitlines()[0])\n'
    )
    lines = run(code)
    assert lines[-2] == f'1 True 5 True VALUE = 5 {tmp_path / "mmaction" / "__init__.py"}'
    assert lines[-1] == 'import mmcv'
    assert mmcv.__version__ != '2.1.0'


def test_version_is_restored_after_an_assertion(tmp_path):
    start = fake(
        tmp_path,
        'import mmcv\n'
        'SEEN = mmcv.__version__\n'
        'assert SEEN == "2.1.0", f"MMCV=={SEEN} is used but incompatible. Please install mmcv>=2.0, <2.2."\n',
    )
    code = 'import mmstvit, mmaction, mmcv\nprint(mmaction.SEEN, mmcv.__version__ != "2.1.0")\n'
    assert run(start + code)[-1] == '2.1.0 True'


@pytest.mark.parametrize(
    'init, error',
    [
        ('assert False, "MMEngine is too old"\n', 'AssertionError: MMEngine is too old'),
        ('import mmcv\nassert False, "MMCV is always wrong"\n', 'AssertionError: MMCV is always wrong'),
        ('import absent_dependency\n', "ModuleNotFoundError: No module named 'absent_dependency'"),
        ('from mmaction.models import absent\n', "ModuleNotFoundError: No module named 'mmaction.models'"),
    ],
)
def test_other_faults_stay_visible(tmp_path, init, error):
    """And mmcv's version is its own again, also when the second try fails."""
    code = fake(tmp_path, init) + (
        'import mmstvit, mmcv\n'
        'before = mmcv.__version__\n'
        'try:\n'
        '    import mmaction\n'
        'except Exception as error:\n'
        '    print(f"{type(error).__name__}: {error}")\n'
        'assert mmcv.__version__ == before\n'
    )
    assert run(code)[-1] == error


def test_absent_package_stays_absent():
    code = (
        'import sys, mmstvit\n'
        'sys.path = [p for p in sys.path if "site-packages" not in p]\n'
        'try:\n'
        '    import mmaction\n'
        'except ModuleNotFoundError as error:\n'
        '    print(error)\n'
    )
    assert run(code)[-1] == "No module named 'mmaction'"


def test_install_twice_changes_nothing():
    code = (
        'import sys, mmstvit\n'
        'from mmstvit.compat import mmaction2\n'
        'before = list(sys.meta_path)\n'
        'mmaction2.install()\n'
        'print(sys.meta_path == before)\n'
    )
    assert run(code)[-1] == 'True'


@pytest.mark.long
def test_workers_started_by_spawn(installed, tmp_path):
    """A worker imports the main script anew; what it is handed needs mmaction to be importable there."""
    (tmp_path / 'main.py').write_text(
        'import multiprocessing\n'
        'import mmstvit\n'
        '\n'
        'def main():\n'
        '    from mmaction.datasets.transforms import SampleFrames\n'
        '    transform = SampleFrames(clip_len=2, num_clips=1, test_mode=True)\n'
        '    with multiprocessing.get_context("spawn").Pool(1) as pool:\n'
        '        sample = dict(total_frames=8, start_index=0)\n'
        '        print(pool.apply(transform, (sample,))["frame_inds"].tolist())\n'
        '\n'
        'if __name__ == "__main__":\n'
        '    main()\n'
    )
    command = [sys.executable, str(tmp_path / 'main.py')]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert len(eval(result.stdout.splitlines()[-1])) == 2
