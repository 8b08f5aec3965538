"""mmstvit without one of the optional packages: it imports, and what needs the package says how to get it."""

import pytest
from fresh_python import run_fresh

# A finder in front of all others that knows one module not to be there.
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} or name.startswith({module!r} + '.'):
            raise ModuleNotFoundError('No module named ' + repr(name), name=name)

sys.meta_path.insert(0, Blocker())
"""
OPTIONAL = [
    ('mmdet', 'det'),
    ('mmaction', 'video'),
    ('mmpretrain', 'cls'),
    ('torchvision', 'cls'),
    ('gradio', 'demo'),
]


def run_without(module, code):
    return run_fresh(BLOCKER.format(module=module) + code)


@pytest.mark.parametrize('module, extra', OPTIONAL)
def test_import_and_require_without(module, extra):
    code = (
        'import mmstvit\n'
        'sys.meta_path.insert(0, Blocker())\n'  # mmstvit puts finders of its own in front
        'from mmstvit.compat.requires import require\n'
        'try:\n'
        f'    require({module!r}, {extra!r}, "this test")\n'
        'except ImportError as error:\n'
        '    print(error)\n'
    )
    line = run_without(module, code)
    assert line.startswith(f"{module} is needed for this test: pip install 'mmstvit[{extra}]'")
    assert '\n' not in line


@pytest.mark.parametrize('module', ['mmdet', 'mmaction', 'mmcv.ops', 'mmpretrain', 'torchvision'])
def test_backbone_is_built_without(module):
    code = (
        'import mmstvit\n'
        'from mmengine.registry import MODELS\n'
        'model = MODELS.build(dict(type="mmstvit.STViT", arch="tiny"))\n'
        'print(type(model).__name__)\n'
    )
    assert run_without(module, code).endswith('STViT')


def test_require_gives_the_module():
    import json

    from mmstvit.compat.requires import require

    assert require('json', 'cls') is json


def test_require_tells_why_an_installed_package_fails(tmp_path, monkeypatch):
    from mmstvit.compat.requires import require

    (tmp_path / 'broken_toolbox.py').write_text("assert False, 'MMCV==9.9 is used but incompatible'")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r'does not import \(MMCV==9\.9 is used .*mmstvit\.check_env'):
        require('broken_toolbox', 'det')
