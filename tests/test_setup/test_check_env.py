"""Every rule of check_env, on made-up versions: what it says and the command it gives."""

import re
import sys
from pathlib import Path

import pytest
from run_helpers import says

from mmstvit.check_env import find_versions, main
from mmstvit.clashes import TESTED, find_clashes

ROOT = Path(__file__).resolve().parents[2]
LIGHT = {
    'python': '3.11.7',
    'torch': '2.12.1',
    'torchvision': '0.27.1',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmpretrain': '1.3.6',
    'numpy': '2.2.6',
    'opencv-python': '4.12.0.88',
    'setuptools': '80.10.2',
}
FULL = {
    **LIGHT,
    'mmcv._ext': '_ext.cpython-311-x86_64-linux-gnu.so',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmsegmentation': '1.4.2',
    'mmaction2': '1.2.0',
    'opencv-python-headless': '4.12.0.88',
}
ORIGINAL = {
    'onedl-mmengine': None,
    'onedl-mmcv': None,
    'onedl-mmpretrain': None,
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmpretrain': '1.2.0',
}
MAKE_OPS = 'pip install --no-build-isolation --no-cache-dir --no-deps --force-reinstall onedl-mmcv==2.3.6'
PAIR = 'pip install torch==2.12.1 torchvision==0.27.1'


def clashes(versions, failures=None):
    return [clash for clash in find_clashes(versions, failures) if not clash.note]


def the_clash(versions, failures=None):
    found = clashes(versions, failures)
    assert len(found) == 1, found
    return found[0]


def test_tested_versions_do_not_clash():
    assert find_clashes(LIGHT) == []
    assert clashes(FULL) == []


def test_tested_versions_are_the_pins():
    pins = dict(re.findall(r'^([\w-]+)==([^\s;]+)$', (ROOT / 'requirements/pins.txt').read_text(), re.MULTILINE))
    assert {name: pins[name] for name in TESTED} == TESTED


def test_detection_without_compiled_operators():
    without = {**FULL, 'mmcv._ext': None}
    assert clashes(without) == []
    note = next(clash for clash in find_clashes(without) if 'operators' in clash.message)
    assert "torchvision's" in note.message and note.mend.endswith(MAKE_OPS)
    # mmcv-lite has no module that would call them: it must make room.
    lite = the_clash({**without, 'onedl-mmcv': None, 'mmcv-lite': '2.1.0'})
    assert lite.mend.startswith('pip uninstall -y mmcv-lite && ') and lite.mend.endswith(MAKE_OPS)


def test_compiled_ops_of_another_torch():
    clash = the_clash(FULL, {'mmcv._ext': 'ImportError: undefined symbol', 'mmdet': 'ImportError: the same'})
    assert clash.message.startswith("onedl-mmcv's compiled operators were built for another PyTorch than 2.12.1")
    assert clash.mend.endswith(MAKE_OPS)


@pytest.mark.parametrize(
    'module, maintained, original',
    [
        ('mmengine', 'onedl-mmengine', 'mmengine'),
        ('mmcv', 'onedl-mmcv', 'mmcv-lite'),
        ('mmpretrain', 'onedl-mmpretrain', 'mmpretrain'),
        ('mmdet', 'onedl-mmdetection', 'mmdet'),
    ],
)
def test_both_lines_at_once(module, maintained, original):
    clash = the_clash({**FULL, original: FULL[maintained]})
    assert clash.message.endswith(f'both install the module {module}')
    assert clash.mend.startswith(f'pip uninstall -y {original} && ')
    assert clash.mend.endswith(f'--no-deps --force-reinstall {maintained}=={FULL[maintained]}') or clash.mend.endswith(
        f'--force-reinstall --no-deps {maintained}=={FULL[maintained]}'
    )


@pytest.mark.parametrize('module', ['mmengine', 'mmcv', 'mmpretrain'])
def test_classification_needs(module):
    clash = the_clash({**LIGHT, f'onedl-{module}': None})
    assert clash.message == f'no {module}: classification needs it'
    assert clash.mend == f'pip install onedl-{module}=={LIGHT[f"onedl-{module}"]}'


def test_mmpretrain_bounds():
    clash = the_clash({**LIGHT, 'onedl-mmcv': '2.4.0'})
    assert says(clash.message, 'onedl-mmpretrain 1.3.6', 'mmcv >= 2.0.0, < 2.4.0', 'onedl-mmcv', '2.4.0')
    assert clash.mend.endswith(MAKE_OPS)
    assert clashes({**LIGHT, 'onedl-mmcv': '2.3.99'}) == []
    old = the_clash({**LIGHT, 'onedl-mmengine': '0.8.2'})
    assert '0.8.3' in old.message and old.mend == 'pip install onedl-mmengine==0.10.12'


def test_original_mmsegmentation_bounds():
    clash = the_clash({**FULL, 'onedl-mmsegmentation': None, 'mmsegmentation': '1.2.2'})
    assert says(clash.message, 'mmsegmentation 1.2.2', 'mmcv >= 2.0.0, < 2.2.0', 'onedl-mmcv', '2.3.6')
    assert clash.mend == 'pip uninstall -y mmsegmentation && pip install onedl-mmsegmentation==1.4.2'


def test_original_mmdet_bounds():
    clash = the_clash({**FULL, 'onedl-mmdetection': None, 'mmdet': '3.3.0'})
    assert says(clash.message, 'mmdet 3.3.0', 'mmcv >= 2.0.0, < 2.2.0', 'onedl-mmcv', '2.3.6')
    assert clash.mend == 'pip uninstall -y mmdet && pip install onedl-mmdetection==3.5.1'


def test_mmaction2_bound_is_a_note():
    (note,) = [clash for clash in find_clashes(FULL) if clash.note]
    assert says(note.message, 'mmaction2 1.2.0', 'mmcv 2.3.6', '`import mmstvit`')
    assert not any(clash.note for clash in find_clashes({**FULL, 'onedl-mmcv': '2.1.0'}))


def test_torch_and_torchvision_of_different_series():
    clash = the_clash({**LIGHT, 'torch': '2.13.0+cpu'})
    assert says(clash.message, 'torchvision 0.27.1', 'torch 2.13.0+cpu', 'torchvision 0.28')
    assert clash.mend == PAIR


def test_torch_and_torchvision_of_different_builds():
    failures = {'torchvision': 'RuntimeError: operator torchvision::nms does not exist', 'mmpretrain': 'the same'}
    clash = the_clash({**LIGHT, 'torch': '2.12.1+cpu'}, failures)
    assert 'another build' in clash.message and 'torchvision::nms' in clash.message
    assert clash.mend == 'pip install --force-reinstall torch==2.12.1 torchvision==0.27.1'


def test_torch_missing_or_old():
    assert the_clash({**LIGHT, 'torchvision': None}).message == 'no torchvision, which every toolbox needs'
    old = the_clash({**LIGHT, 'torch': '2.5.1', 'torchvision': '0.20.1'})
    assert old.message.startswith('torch 2.5.1 is below 2.6: it cannot read checkpoints') and old.mend == PAIR
    assert clashes({**LIGHT, 'torch': '2.6.0', 'torchvision': '0.21.0'}) == []


def test_numpy_too_new_for_opencv():
    clash = the_clash({**LIGHT, 'numpy': '2.3.0'})
    assert says(clash.message, 'opencv-python 4.12.0.88', 'below 2.3', 'numpy is 2.3.0')
    assert clash.mend == 'pip install numpy==2.2.6'
    assert clashes({**LIGHT, 'numpy': '2.3.0', 'opencv-python': '4.13.0.90'}) == []


def test_numpy_2_with_opencv_built_for_numpy_1():
    clash = the_clash({**LIGHT, 'opencv-python': '4.8.1.78'})
    assert 'built for NumPy 1' in clash.message and clash.mend == "pip install 'opencv-python==4.12.0.88'"


def test_two_opencv_packages_of_different_versions():
    clash = the_clash({**FULL, 'opencv-python-headless': '4.11.0.86'})
    assert says(clash.message, 'opencv-python 4.12.0.88', 'opencv-python-headless 4.11.0.86', 'cv2')
    assert clash.mend == (
        'pip install --force-reinstall --no-deps opencv-python==4.12.0.88 opencv-python-headless==4.12.0.88'
    )


def test_original_mmengine_needs_pkg_resources():
    clash = the_clash({**LIGHT, **ORIGINAL, 'setuptools': '82.0.0'})
    assert says(clash.message, 'mmengine 0.10.7', 'pkg_resources', 'setuptools 82.0.0')
    assert clash.mend == "pip install 'setuptools<82'"
    assert clashes({**LIGHT, **ORIGINAL}) == []
    assert clashes({**LIGHT, 'setuptools': '82.0.0'}) == []


def test_original_mmengine_loads_checkpoints_with_mmstvit_alone():
    (note,) = find_clashes({**LIGHT, **ORIGINAL})
    assert says(note.message, 'mmengine 0.10.7', 'checkpoints', 'import mmstvit')
    assert note.note and note.mend == 'pip uninstall -y mmengine && pip install onedl-mmengine==0.10.12'


def test_old_python():
    clash = the_clash({**LIGHT, 'python': '3.9.18'})
    assert clash.message == 'Python 3.9.18 is below 3.10' and 'PYTHON=' in clash.mend


def test_unexplained_failure_is_named():
    clash = the_clash(LIGHT, {'cv2': 'ImportError: libGL.so.1', 'mmcv': 'ImportError: libGL.so.1'})
    assert says(clash.message, 'cv2', 'ImportError: libGL.so.1')
    assert clash.mend == 'pip install --force-reinstall --no-deps opencv-python==4.12.0.88'


def test_versions_found_here():
    versions = find_versions()
    assert versions['python'] == '.'.join(map(str, sys.version_info[:3]))
    import torch

    assert torch.__version__.startswith(versions['torch'])


def test_command_exits_0_here(capsys):
    code, out = main([]), capsys.readouterr().out
    assert code == 0, out
    assert 'Nothing clashes. Ready: classification' in out
