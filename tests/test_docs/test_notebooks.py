"""The notebooks: valid, without outputs, and executed from the first cell to the last."""

import os
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from run_helpers import ROOT

NOTEBOOKS = sorted((ROOT / 'docs' / 'notebooks').glob('*.ipynb'))
notebooks = pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == 'code']


@notebooks
def test_notebook_is_clean(path):
    _, cells = cells_of(path)
    assert len(cells) > 3 and "SOURCE = ''" in cells[0].source  # what is installed is a setting
    for cell in cells:
        compile(cell.source, path.name, 'exec')
        assert not cell.outputs and cell.execution_count is None


@pytest.mark.long
@notebooks
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), *sys.path]))
    notebook, cells = cells_of(path)
    notebook.metadata.kernelspec.name = 'python3'
    NotebookClient(notebook, timeout=300, resources={'metadata': {'path': str(tmp_path)}}).execute()
    printed = ''.join(out.get('text', '') for cell in cells for out in cell.outputs)
    assert '40 tokens' in printed and 'to the last bit: True' in printed
    (accuracy,) = [int(line.split('%')[0]) for line in printed.splitlines() if 'held-out digits are read' in line]
    assert accuracy > 25
    (difference,) = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith('largest difference')]
    assert difference < 1e-4
    assert any('image/png' in out.get('data', {}) for cell in cells for out in cell.outputs)
