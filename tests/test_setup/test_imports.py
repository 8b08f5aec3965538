"""mmstvit without one of the optional packages: it imports, and what needs the package says how to get it."""

import json
import re
import subprocess
import sys

import pytest
from fresh_python import run_fresh
from run_helpers import ROOT

from mmstvit.cli.main import COMMANDS
from mmstvit.compat.requires import EXTRAS

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
    ('mmseg', 'seg'),
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


@pytest.mark.parametrize(
    'module, door, extra', [('timm', 'mmstvit.timm', 'analysis'), ('huggingface_hub', 'mmstvit.hub', 'hf')]
)
def test_doors_of_other_libraries_without_them(module, door, extra):
    code = (
        'import mmstvit\n'
        'sys.meta_path.insert(0, Blocker())\n'
        'try:\n'
        f'    import {door}\n'
        'except ImportError as error:\n'
        '    print(error)\n'
    )
    assert run_without(module, code).endswith(f"pip install 'mmstvit[{extra}]'")


@pytest.mark.parametrize('module', ['mmdet', 'mmseg', 'mmaction', 'mmcv.ops', 'mmpretrain', 'torchvision'])
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


EVERY_COMMAND = """
import contextlib, io, json
from mmstvit import check_env
from mmstvit.cli.main import main

check_env.find_failures = lambda versions: {{}}  # tries imports in another process

def run(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    return code, out.getvalue(), err.getvalue()

for name in {names!r}:
    print(json.dumps([name, *run(*name.split())]))
"""


def test_commands_without_the_extras():
    """Each says in one line what to install; those that need nothing but Python work."""
    alone = ['--help', '--version', '--completion bash', 'check-env']
    others = [f'{name} --help' for name in COMMANDS if name != 'check-env']
    blocked = [*EXTRAS, 'torch', 'numpy', 'safetensors']
    code = f'import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n' + EVERY_COMMAND.format(names=alone + others)
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    said = {name: answer for name, *answer in map(json.loads, result.stdout.splitlines())}
    for name in alone[:3]:
        assert said[name][0] == 0 and said[name][1]
    assert said['check-env'][1].startswith('mmstvit ')
    for name in others:
        status, _, line = said[name]
        assert status == 2 and line.startswith('error: ') and 'is not installed: pip install' in line, (name, line)
        assert len(line.splitlines()) == 1


def test_nothing_is_imported_that_is_not_needed():
    """Each step may have imported what stands behind it, and no more."""
    lacks = """
import sys

def lacks(*names):
    found = [name for name in names if name in sys.modules]
    assert not found, found
"""
    code = """
import contextlib, io
from mmstvit.cli.main import main

with contextlib.redirect_stdout(io.StringIO()):
    for words in (['--version'], ['--help'], ['list'], ['list', '--json']):
        main(words)
lacks('torch', 'numpy', 'mmengine', 'mmcv', 'mmpretrain')
"""
    result = subprocess.run([sys.executable, '-c', lacks + code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    code = """
import mmstvit.models
lacks('mmpretrain', 'mmdet', 'mmseg', 'mmaction')
lacks('torchvision', 'sklearn', 'scipy', 'matplotlib', 'timm', 'onnx', 'pandas')
import mmstvit.cli.flops, mmstvit.cli.infer, mmstvit.cli.train
mmstvit.get_model('stvit-tiny_digits')
lacks('mmdet', 'mmseg', 'mmaction', 'sklearn', 'matplotlib', 'timm', 'onnx', 'pandas', 'gradio')
import importlib.util
if importlib.util.find_spec('mmdet'):  # the layer that mmpretrain has for it is there as soon as it is
    import mmdet.models, mmdet.registry, mmpretrain.models.utils
    layer = mmdet.registry.MODELS.get('ResLayerExtraNorm')
    assert layer is mmpretrain.models.utils.ResLayerExtraNorm is not None
"""
    run_fresh(lacks + code)


def test_the_package_imports_no_project():
    """Projects are not in the wheel."""
    line = re.compile(r'^\s*(from|import) projects\b', re.MULTILINE)
    assert line.search('    from projects.evidence import plan')
    assert not [path for path in (ROOT / 'mmstvit').rglob('*.py') if line.search(path.read_text())]
