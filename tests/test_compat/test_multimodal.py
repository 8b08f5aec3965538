"""The toolboxes beside transformers 5."""

from importlib import import_module, metadata

import pytest

import mmstvit  # noqa: F401


@pytest.mark.parametrize('package, model', [('mmpretrain', 'BlipCaption'), ('mmaction', 'VindLUVQA')])
def test_multimodal_models_ask_to_be_installed(package, model):
    pytest.importorskip('transformers')
    pytest.importorskip(package)
    models = import_module(f'{package}.registry').MODELS
    major = int(metadata.version('transformers').partition('.')[0])
    if major >= 5:
        assert not import_module(f'{package}.utils.dependency').WITH_MULTIMODAL
        with pytest.raises(ImportError, match='multi-?modal'):
            models.build(dict(type=f'{package}.{model}'))
    assert models.get(f'{package}.{model}') is not None
