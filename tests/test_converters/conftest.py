"""What is logged of loading."""

import logging

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def lines():
    """The lines that mmengine's logger gets."""
    said, logger, handler = [], MMLogger.get_current_instance(), logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    level = logger.level  # commands raise it
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def matched(lines):
    """Returns the line that tells how many tensors matched; there is one."""

    def told():
        (line,) = [line for line in lines if 'matched' in line]
        return line

    return told
