"""What is logged of loading."""

import pytest


@pytest.fixture
def lines(monkeypatch):
    said = []
    for module in ('converters.published', 'apis.weights', 'engine.loading'):
        monkeypatch.setattr(f'mmstvit.{module}.print_log', lambda line, **kwargs: said.append(line))
    return said
