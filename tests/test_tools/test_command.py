"""The mmstvit command: one word for each tool, and what is said where a word is wrong."""

import importlib
import json
import re
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from run_helpers import ROOT

from mmstvit import get_model, list_models
from mmstvit.apis.configs import find_config
from mmstvit.cli.main import COMMANDS, main
from mmstvit.console import print_table
from mmstvit.errors import UsageError, nearest


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
    main(['list', '--names', 'stvit-tiny_d*'])
    assert capsys.readouterr().out.split() == ['stvit-tiny_digits']
    main(['list', 'mask-rcnn_stvit-r_digits'])
    row = next(line for line in capsys.readouterr().out.splitlines() if 'mask-rcnn_stvit-r_digits' in line)
    assert 'Object Detection, Instance Segmentation' in row and 'box AP 0.774' in row and '4.25 M' in row


@pytest.fixture
def narrow(monkeypatch):
    """A terminal of 80 columns."""
    monkeypatch.setenv('FORCE_COLOR', '1')
    monkeypatch.setenv('COLUMNS', '80')
    return lambda text: re.sub(r'\x1b\[[\d;]*m', '', text)


def test_names_are_whole_at_80_columns(narrow, capsys):
    main(['list'])
    shown = narrow(capsys.readouterr().out)
    names = list_models()
    assert set(names) <= set(shown.split()) and '…' not in shown
    assert max(map(len, names)) < 80 >= max(map(len, shown.splitlines()))
    main(['flops', 'stvit-tiny_digits', 'stvit-t_8xb128_in1k'])
    shown = narrow(capsys.readouterr().out)
    assert '…' not in shown and max(map(len, shown.splitlines())) <= 80
    assert 'backbone.encoder.layers' in shown and 'outside these' in shown
    assert shown.count('stvit-t_8xb128_in1k') >= 2  # above its table, and in the comparison


@pytest.mark.parametrize('width', [20, 40, 60, 80, 120])
def test_a_table_keeps_all_at_any_width(width):
    table = Table('name', 'what it is', 'count', title='a title')
    table.columns[2].justify = 'right'
    rows = [('a-name-of-one-word[1]', 'several words of text', '1.25 G'), ('other', 'short', '12 k')]
    for name, *cells in rows:
        table.add_row(name.replace('[', r'\['), *cells)
    screen = Console(width=width, force_terminal=True, no_color=True, record=True, highlight=False)
    print_table(screen, table, ('count',))
    shown = screen.export_text()
    assert ('count' in shown) is (width != 40)  # it is left out where the rest fits without
    for name, text, count in rows:
        assert (
            name in shown and (count in shown or width == 40) and set(text.split()) <= set(re.findall(r'[\w-]+', shown))
        )


def test_list_for_other_programs(capsys):
    main(['list', '--json'])
    models = {model['name']: model for model in json.loads(capsys.readouterr().out)}
    assert list(models) == list_models()
    digits, published = models['stvit-tiny_digits'], models['t2t-vit-t-14_8xb64_in1k']
    assert digits['params'] == sum(p.numel() for p in get_model('stvit-tiny_digits').parameters())
    assert digits['tasks'] == ['Image Classification'] and digits['weights'] is None and digits['accuracy'] > 99
    assert published['weights'].startswith('https://') and published['multiply_adds'] > 6e9
    assert models['mask-rcnn_stvit-r_digits']['accuracy'] is None
    assert all(Path(model['config']).is_file() for model in models.values())


def test_completion_in_bash():
    """As bash does it: the words are there, the function is called, and it leaves the candidates."""
    lines = [
        f'mmstvit() {{ {sys.executable} -m mmstvit "$@"; }}',
        'source <(mmstvit --completion bash)',
        'complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mmstvit; echo "${COMPREPLY[@]}"; }',
        'complete_words mmstvit sh',
        'complete_words mmstvit flops stvit-tiny_d',
        'complete_words mmstvit convert stvit-tiny_d',
    ]
    result = subprocess.run(['bash', '-c', '\n'.join(lines)], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.splitlines() == ['show-tokens show-cam', 'stvit-tiny_digits', '']


@pytest.mark.parametrize('shell', ['zsh', 'fish'])
def test_completion_knows_every_command(shell, capsys):
    assert main(['--completion', shell]) == 0
    words = re.findall(r'[\w-]+', capsys.readouterr().out)
    assert set(COMMANDS) <= set(words)
    assert main(['--completion', 'tcsh']) == 2


def test_the_beginning_of_a_name_comes_first():
    names = ['stvit-r_digits', 'stvit-swin-t_8xb128_in1k', 'stvit-s_8xb128_in1k', 'stvit-s_cifar10', 'swin']
    assert nearest('stvit-s', names) == 'stvit-s_8xb128_in1k'
    assert nearest('STViT-sw', names) == 'stvit-swin-t_8xb128_in1k'
    assert nearest('stvit-r_digit5', names) == 'stvit-r_digits'  # begins none
    assert nearest('resnet', names) is nearest('', names) is None
    with pytest.raises(UsageError, match='configs/stvit/stvit-s_8xb128_in1k'):
        find_config('stvit-s')


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
        assert find_config(name).samefile(next((ROOT / 'configs').glob(f'*/{name}.py')))
    with pytest.raises(UsageError, match=r'no config stvit-tny_digits; did you mean configs/digits/stvit-tiny_digits'):
        find_config('stvit-tny_digits')
