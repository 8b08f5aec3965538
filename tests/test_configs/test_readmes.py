"""The pieces of configs in the READMEs: each is one, and what it describes can be built."""

import re

import pytest
import torch
from mmengine.config import Config
from run_helpers import ROOT

from mmstvit import get_model
from mmstvit.registry import MODELS

README_FILES = sorted((ROOT / 'configs').glob('*/README.md'))
BLOCKS = [
    pytest.param(block, id=f'{path.parent.name}-{number}')
    for path in README_FILES
    for number, block in enumerate(re.findall(r'```python\n(.*?)```', path.read_text(), re.DOTALL))
]


@pytest.mark.parametrize('block', BLOCKS)
def test_python_in_the_readmes_is_a_config_or_a_program(block):
    if re.search(r'^(from|import) ', block, re.MULTILINE):
        compile(block, 'README.md', 'exec')
        return
    cfg = Config.fromstring(block, '.py')
    assert len(cfg) > 0
    if '_base_' in block:
        assert isinstance(get_model(cfg, device='meta'), torch.nn.Module)
        return
    for value in cfg.values():
        for part in value if isinstance(value, list) else [value]:
            with torch.device('meta'):
                assert isinstance(MODELS.build(part), torch.nn.Module)


def test_there_are_such_pieces():
    assert sum('type=' in block.values[0] for block in BLOCKS) >= 4
