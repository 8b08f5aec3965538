"""The commands, run in this process."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are too small for a second thread, and threads that wait for each other can spin for seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
