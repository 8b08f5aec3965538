"""Folders of Hugging Face's form: what is read is what was written, the token reduction included."""

import json

import pytest
import timm
import torch

import mmstvit
import mmstvit.timm  # noqa: F401  its networks in timm
from mmstvit.errors import UsageError
from mmstvit.models.reduction import reduction_of

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SMALL = dict(embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr('socket.socket.connect', lambda *_: pytest.fail('something was looked up in the network'))


def ours(**options):
    return mmstvit.create_model('stvit_tiny', num_classes=3, img_size=64, arch=SMALL, **options).eval()


def of_timm(name='vit_tiny_patch16_224', **options):
    return timm.create_model(name, num_classes=3, img_size=64, **options).eval()


MODELS = {
    'grid': lambda: ours(reduce=dict(type='STGM', grid=(2, 2), layer=0)),
    'in the config': lambda: ours(reduce=dict(type='ToMe', r=2)),
    'afterwards': lambda: mmstvit.reduce_(ours(reduce=None), 'tome', r=(2, 0, 1)),
    'bfloat16': lambda: ours(reduce=None).bfloat16(),
    'timm': lambda: mmstvit.reduce_(of_timm(depth=3), 'evit', keep_rate=0.5),
    'timm, ours': lambda: of_timm('stvit_tiny_patch16_224', semantic_grid=(2, 2)),
}


@pytest.mark.parametrize('name', MODELS)
@torch.no_grad()
def test_round_trip_is_exact(name, tmp_path):
    model = MODELS[name]()
    mmstvit.save_pretrained(model, tmp_path / 'folder')
    assert {path.name for path in (tmp_path / 'folder').iterdir()} == {'config.json', 'model.safetensors', 'README.md'}
    again = mmstvit.from_pretrained(tmp_path / 'folder')
    images = IMAGES.to(next(model.parameters()).dtype)
    assert type(again) is type(model) and not again.training
    assert again(images).equal(model(images))
    assert {key: value.dtype for key, value in again.state_dict().items()} == {
        key: value.dtype for key, value in model.state_dict().items()
    }
    reductions = [reduction_of(each) for each in (model, again)]
    assert repr(reductions[0]) == repr(reductions[1])
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_classifier_that_was_replaced(tmp_path):
    model = ours(reduce=None)
    model.reset_classifier(7)
    mmstvit.save_pretrained(model, tmp_path)
    assert mmstvit.from_pretrained(tmp_path).num_classes == 7


def test_card(tmp_path):
    model = mmstvit.reduce_(ours(reduce=None), 'tome', r=2)
    mmstvit.save_pretrained(model, tmp_path)
    card = (tmp_path / 'README.md').read_text()
    assert 'library_name: mmstvit' in card and '# stvit_tiny' in card and model.reduction.summary in card
    (tmp_path / 'README.md').write_text('written by hand')
    mmstvit.save_pretrained(model, tmp_path)
    assert (tmp_path / 'README.md').read_text() == 'written by hand'


def test_timm_reads_its_own(tmp_path):
    model = of_timm(depth=3)
    mmstvit.save_pretrained(model, tmp_path)
    assert timm.create_model(f'local-dir:{tmp_path}', pretrained=True).eval()(IMAGES).equal(model(IMAGES))


def test_what_cannot_be_saved_or_read(tmp_path):
    with pytest.raises(UsageError, match='Linear is not of mmstvit.create_model'):
        mmstvit.save_pretrained(torch.nn.Linear(1, 1), tmp_path / 'none')
    model = ours(reduce=None)
    model.settings['init_cfg'] = torch.float32
    with pytest.raises(UsageError, match='cannot be written as JSON'):
        mmstvit.save_pretrained(model, tmp_path / 'none')
    with pytest.raises(UsageError, match='there is no folder'):
        mmstvit.from_pretrained(tmp_path / 'absent')
    mmstvit.save_pretrained(ours(reduce=None), tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'num_classes': 5}))
    with pytest.raises(UsageError, match='is of another network than the config.json'):
        mmstvit.from_pretrained(tmp_path)
    (tmp_path / 'config.json').unlink()
    with pytest.raises(UsageError, match='config.json is missing'):
        mmstvit.from_pretrained(tmp_path)
