"""The tutorials of the site, executed as they stand: every shell line, every piece of Python, every file they write."""

import doctest
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from run_helpers import ROOT, run_here

pytest.importorskip('sybil')

from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.myst import CodeBlockParser

TUTORIALS = sorted(path for path in (ROOT / 'docs' / 'tutorials').glob('*.md') if path.stem != 'index')


def run_python(example):
    """A block with a caption is a file of that name; the others are run, one after the other in one namespace."""
    caption = example.region.lexemes.get('options', {}).get('caption')
    if caption is None:
        PythonEvaluator()(example)
    else:
        Path(caption).write_text(example.parsed)


def run_shell(example, monkeypatch):
    """Commands of ours in this process, where they start in no time; the others in a shell, the environment active."""
    monkeypatch.setenv('PATH', str(Path(sys.executable).parent), prepend=os.pathsep)
    for line in example.parsed.replace('\\\n', ' ').splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ['python'] and words[1].startswith('tools/'):
            run_here(monkeypatch, words[1].removeprefix('tools/'), *words[2:])
        elif words:
            subprocess.run(['bash', '-c', line], check=True)


# Those that train a network for what another tutorial shows too.
LONG = ('pictures', 'token_budget')


@pytest.mark.parametrize(
    'tutorial',
    [pytest.param(path, id=path.stem, marks=[pytest.mark.long] if path.stem in LONG else []) for path in TUTORIALS],
)
def test_tutorial(tutorial, tmp_path, monkeypatch, capsys):
    for folder in ('configs', 'tools'):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    printed = None

    def evaluate_python(example):
        nonlocal printed
        capsys.readouterr()
        run_python(example)
        lines = capsys.readouterr().out.splitlines(keepends=True)
        printed = ''.join(line for line in lines if ' - mmengine - ' not in line)

    def evaluate_shell(example):
        nonlocal printed
        run_shell(example, monkeypatch)
        printed = None  # with times and paths of the machine

    def compare(example):
        if printed is not None:
            assert doctest.OutputChecker().check_output(example.parsed, printed, doctest.ELLIPSIS), printed

    parsers = [
        CodeBlockParser('python', evaluate_python),
        CodeBlockParser('shell', evaluate_shell),
        CodeBlockParser('text', compare),
    ]
    examples = list(Sybil(parsers, path=str(tutorial.parent), pattern='*.md').parse(tutorial).examples())
    assert len(examples) >= 3, 'nothing of this tutorial was found to be executed'
    for example in examples:
        example.evaluate()
