"""tools/test_matrix.py with the commands that it would run recorded in place of run."""

import importlib.util
import os
from pathlib import Path

import pytest
from run_helpers import ROOT

spec = importlib.util.spec_from_file_location('test_matrix', ROOT / 'tools' / 'test_matrix.py')
test_matrix = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test_matrix)


class Machine:
    """A machine with some Pythons; of each environment it remembers what was installed and tried."""

    def __init__(self, *pythons, fails=''):
        self.pythons, self.fails, self.commands = pythons, fails, []

    def __call__(self, command):
        self.commands.append(' '.join(command))
        if 'build' in command:
            folder = Path(command[command.index('--out-dir') + 1])
            folder.mkdir()
            (folder / 'mmstvit-0.1.0-py3-none-any.whl').touch()
        if 'find' in command:
            found = command[-1] in self.pythons
            return (0, f'a warning\n/usr/bin/python{command[-1]}\n') if found else (2, 'no interpreter found')
        if self.fails and self.fails in self.commands[-1]:
            return 1, 'Traceback\nImportError: no such thing\n'
        return 0, 'torch 2.6.0\n'


def rows(output):
    return [line.split(maxsplit=4) for line in output.splitlines() if line.startswith('Python')]


def test_each_python_with_each_pytorch(capsys):
    machine = Machine('3.10', '3.12')
    assert test_matrix.main([], machine) == 0
    out = capsys.readouterr().out
    table = {(row[1], row[3]): row[4] for row in rows(out)}
    assert len(table) == 8 and out.endswith('4 passed, 0 failed, 4 without an interpreter\n')
    assert table['3.12', '2.6'] == 'passed (torch 2.6.0)' and table['3.13', 'newest'] == 'no Python 3.13 here'
    assert sum(' build ' in command for command in machine.commands) == 1  # one wheel for all
    installs = [command for command in machine.commands if 'pip install' in command]
    assert len(installs) == 4 and all('.whl[cls] torch' in command for command in installs)
    assert sum('torch==2.6.* torchvision==0.21.*' in command for command in installs) == 2
    assert [command for command in machine.commands if 'venv' in command][0].split()[4] == '/usr/bin/python3.10'
    assert sum(command.endswith('-m mmstvit --version') for command in machine.commands) == 4


def test_failure_is_told_and_the_others_go_on(capsys):
    machine = Machine('3.11', fails='torch==2.6')
    assert test_matrix.main(['--python', '3.11'], machine) == 1
    captured = capsys.readouterr()
    assert 'Python 3.11  PyTorch 2.6     failed: ImportError: no such thing' in captured.out
    assert '1 passed, 1 failed' in captured.out and 'Traceback' in captured.err


def test_no_python_at_all_is_no_success(capsys):
    assert test_matrix.main(['--python', '3.13'], Machine()) == 1
    with pytest.raises(SystemExit, match='could not be built'):
        test_matrix.main(['--python', '3.13'], Machine(fails='build'))


def test_pythons_of_pyenv_are_found(tmp_path, monkeypatch):
    (tmp_path / 'versions' / '3.12.1' / 'bin').mkdir(parents=True)
    monkeypatch.setenv('PYENV_ROOT', str(tmp_path))
    monkeypatch.setenv('PYTHONPATH', 'elsewhere')
    code, output = test_matrix.run_command(['sh', '-c', 'echo "$PATH"; echo "$PYTHONPATH"; pwd; exit 3'])
    path, python_path, folder = output.split('\n')[:3]
    assert code == 3 and path.split(os.pathsep)[0] == str(tmp_path / 'versions' / '3.12.1' / 'bin')
    assert python_path == '' and folder != str(ROOT)
