"""The mmstvit command: one word for each tool, and what is said where a word is wrong."""

import importlib
import sys
from importlib.util import resolve_name

import pytest
from run_helpers import ROOT

from mmstvit import list_models
from mmstvit.apis.configs import find_config
from mmstvit.cli.main import COMMANDS, main
from mmstvit.errors import UsageError


@pytest.fixture(autouse=True)
def arguments_as_before(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['pytest'])


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_its_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, '--help'])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f'usage: mmstvit {name} ') and '\nexample: ' in shown


def test_every_tool_is_a_command_too():
    """A tool that only calls a main of mmstvit.cli is reached by the command as well,"""
    called = {resolve_name(module, 'mmstvit.cli') for module, _ in COMMANDS.values()}
    for tool in (ROOT / 'tools').glob('*/*.py'):
        line = next((line for line in tool.read_text().splitlines() if line.startswith('from mmstvit.cli.')), None)
        if line and line.endswith('import main'):
            module = line.split()[1]
            assert module in called, tool
    for module in called:
        assert callable(importlib.import_module(module).main)


def test_list(capsys):
    main(['list', '--names', 'stvit-tiny*'])
    assert capsys.readouterr().out.split() == ['stvit-tiny_digits']
    main(['list', 'mask-rcnn_stvit-r_digits'])
    row = next(line for line in capsys.readouterr().out.splitlines() if 'mask-rcnn_stvit-r_digits' in line)
    assert 'Object Detection, Instance Segmentation' in row and 'box AP 0.774' in row and '4.25 M' in row


@pytest.mark.parametrize(
    'given,line',
    [(['tran'], 'no command tran; did you mean train?'), (['list', 'stvti-s'], 'no model has stvti-s in its name')],
)
def test_wrong_words_are_told_in_one_line(given, line, capsys):
    try:
        code = main(given)
    except SystemExit as end:
        code = end.code
    assert code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said


COMMANDS_OF_MODELS = {
    'train': [],
    'test': [__file__],
    'infer': [__file__],
    'flops': [],
    'benchmark': [],
    'show-tokens': [__file__, __file__],
    'show-cam': [__file__, __file__],
    'export': [__file__, 'x.onnx'],
}


@pytest.mark.parametrize('name', COMMANDS_OF_MODELS)
def test_a_name_near_a_wrong_one_is_suggested(name, fails):
    said = fails(main, name, 'stvit-tny_digits', *COMMANDS_OF_MODELS[name])
    assert 'stvit-tny_digits' in said and 'configs/digits/stvit-tiny_digits' in said


def test_without_a_command_the_commands_are_shown(capsys):
    assert main([]) == 2 and main(['--help']) == 0
    shown = capsys.readouterr().out
    assert all(f'  {name} ' in shown for name in COMMANDS)


def test_a_model_is_a_config_by_its_name():
    for name in list_models('*digits'):
        assert find_config(name).samefile(ROOT / 'configs' / 'digits' / f'{name}.py')
    with pytest.raises(UsageError, match=r'no config stvit-tny_digits; did you mean configs/digits/stvit-tiny_digits'):
        find_config('stvit-tny_digits')
