"""T2T-ViT's published weights by name: the address of the model index, asked of a web server on loopback.

Nothing is replaced but the host that the address names, so downloading, renaming and inference are those of a user.
"""

import re
import shutil
import urllib.parse
import urllib.request
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from published_files import reference

from mmstvit import get_model, inference_model
from mmstvit.functional.position import sinusoid_table
from mmstvit.io import checkpoints
from mmstvit.paths import package_data

# Ours -> theirs, by hand.
AUTHORS = [
    (r'backbone\.patch_embed\.projection', 'tokens_to_token.project'),
    (r'backbone\.patch_embed\.', 'tokens_to_token.'),
    (r'backbone\.encoder\.layers\.', 'blocks.'),
    (r'backbone\.', ''),
    (r'head\.layers\.head\.', 'head.'),
]
PERFORMER = [
    (r'(attention\d)\.attn\.qkv', r'\1.kqv'),
    (r'(attention\d)\.attn\.features', r'\1.w'),
    (r'(attention\d)\.attn\.proj', r'\1.proj'),
    (r'(attention\d)\.mlp\.fc1', r'\1.mlp.0'),
    (r'(attention\d)\.mlp\.fc2', r'\1.mlp.2'),
]
MMPRETRAIN = [
    (r'patch_embed\.projection', 'tokens_to_token.project'),
    (r'patch_embed\.', 'tokens_to_token.'),
    (r'encoder\.layers\.', 'encoder.'),
    (r'\.norm([12])\.', r'.ln\1.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
]


def published(state_dict, rules):
    """A state dict of ours in published names: one table for the positions of all tokens, key before query."""
    theirs = {}
    for name, value in state_dict.items():
        if rules[0] == PERFORMER[0] and re.search(PERFORMER[0][0], name):
            query, key, rest = value.chunk(3)
            value = torch.cat((key, query, rest))
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        theirs[name] = value
    prefix = 'backbone.' if rules is MMPRETRAIN else ''
    table = theirs[f'{prefix}pos_embed']
    table = sinusoid_table(1 + table[0, ..., 0].numel(), table.shape[-1])[None]
    theirs[f'{prefix}cls_token'] = theirs[f'{prefix}cls_token'] - table[:, :1]
    theirs[f'{prefix}pos_embed'] = table
    return theirs


def of_mmpretrain(state_dict):
    return {'meta': {}, 'state_dict': published(state_dict, MMPRETRAIN)}


def of_authors(state_dict):
    performer = any(name.endswith('attn.features') for name in state_dict)
    return {'state_dict_ema': published(state_dict, PERFORMER * performer + AUTHORS)}


def address_of(name):
    metafile = mmengine.load(package_data() / 'configs' / 't2t_vit' / 'metafile.yml')
    return next(entry['Weights'] for entry in metafile['Models'] if entry['Name'] == name)


@pytest.fixture
def internet(web, monkeypatch, tmp_path):
    """Requests go to the web server on loopback, whatever host they name; the list of what was asked for."""
    asked = []

    class Proxy(urllib.request.BaseHandler):
        def https_request(self, request):
            asked.append(request.full_url)
            request.full_url = web.url(urllib.parse.urlsplit(request.full_url).path.lstrip('/'))
            return request

    urllib.request.install_opener(urllib.request.build_opener(Proxy))
    monkeypatch.setattr(checkpoints, '_check_hash', lambda path, url: None)  # the made files have other ones
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    yield asked
    urllib.request.install_opener(None)
    for place in web.folder.iterdir():
        if place.is_dir():
            shutil.rmtree(place)


def source_of(name):
    """A model whose every tensor is random and large enough to show."""
    model = get_model(name)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize(
    'name,file_of',
    [
        ('t2t-vit-t-14_8xb64_in1k', of_mmpretrain),
        ('t2t-vit-7_8xb64_in1k', of_authors),
    ],
)
def test_by_name(name, file_of, internet, web, tmp_path):
    source = source_of(name)
    address = address_of(name)
    file = web.folder / urllib.parse.urlsplit(address).path.lstrip('/')
    file.parent.mkdir(parents=True)
    torch.save(file_of(source.state_dict()), file)

    image = np.random.default_rng(0).integers(0, 255, (250, 300, 3), dtype=np.uint8)
    result = inference_model(name, image)
    assert internet == [address]
    expected = inference_model(source, image)
    assert result['pred_label'] == expected['pred_label'] and len(result['pred_scores']) == 1000
    np.testing.assert_allclose(result['pred_scores'], expected['pred_scores'], atol=1e-6)
    assert np.ptp(expected['pred_scores']) > 1e-3

    model = get_model(name, pretrained=True)
    assert len(internet) == 1  # the file of the first download was used
    assert [path.name for path in (tmp_path / 'cache').rglob('*') if path.is_file()] == [Path(address).name]
    for key, value in source.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, atol=1e-6, rtol=0)
    inputs = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        features, logits = model.extract_feat(inputs), model(inputs)
        torch.testing.assert_close(features, source.extract_feat(inputs), atol=1e-4, rtol=1e-4)
    assert [tuple(feature.shape) for feature in features] == [(2, model.backbone.embed_dims)]
    torch.testing.assert_close(model.head(features), logits)


def test_the_file_has_the_names_and_shapes_of_mmpretrain():
    models = pytest.importorskip('mmpretrain.apis')
    with torch.device('meta'):
        theirs, ours = (build('t2t-vit-t-14_8xb64_in1k', device='meta') for build in (models.get_model, get_model))
        made = published(ours.state_dict(), MMPRETRAIN)
    shapes = [{key: value.shape for key, value in state.items()} for state in (made, theirs.state_dict())]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize('name,kind', [('t2t-vit-t-14', 'transformer'), ('t2t-vit-7', 'performer')])
def test_the_file_has_the_names_of_the_authors(name, kind):
    with torch.device('meta'):
        made = of_authors(get_model(f'{name}_8xb64_in1k', device='meta').state_dict())['state_dict_ema']
    theirs = {re.sub(r'blocks\.\d+', 'blocks.0', key) for key in reference(f't2t_vit_{kind}')[0]}
    assert {re.sub(r'blocks\.\d+', 'blocks.0', key) for key in made} == theirs


def test_a_file_that_is_no_longer_there(internet):
    with pytest.raises(OSError, match='404'):
        get_model('t2t-vit-t-14_8xb64_in1k', pretrained=True)
    assert internet == [address_of('t2t-vit-t-14_8xb64_in1k')]
