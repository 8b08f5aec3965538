"""Weights under other names of a checkpoint, and behind the prefixes of modules that wrap others."""

import re

import pytest
import torch
from mmengine.runner import load_checkpoint
from vits import IMAGE, PLAIN, classifier, close, model_of, prefixed, timm_vit

from mmstvit.converters import convert_published_state_dict
from mmstvit.models import STViT

WRAPPED = {
    'model': lambda sd: {'model': sd, 'epoch': 3},
    'model_ema': lambda sd: {'model_ema': sd},
    'state_dict_ema': lambda sd: {'state_dict_ema': prefixed(sd, 'module.')},
    'ema_state_dict': lambda sd: {'ema_state_dict': {'steps': torch.tensor(7), **prefixed(sd, 'module.')}},
    'module.': lambda sd: prefixed(sd, 'module.'),
    '_orig_mod.': lambda sd: {'state_dict': prefixed(sd, '_orig_mod.')},
    'module._orig_mod.': lambda sd: {'model': prefixed(sd, 'module._orig_mod.')},
    '_orig_mod.module.': lambda sd: {'model': prefixed(sd, '_orig_mod.module.')},
    'compiled blocks': lambda sd: {re.sub(r'^(blocks\.\d+\.)', r'\1_orig_mod.', name): sd[name] for name in sd},
}
BACKBONES = {
    'teacher': lambda sd: {'student': prefixed(sd, 'module.backbone.'), 'teacher': prefixed(sd, 'backbone.')},
    'teacher, distributed': lambda sd: {'teacher': prefixed(sd, 'module.backbone.')},
    'backbone.': lambda sd: prefixed(sd, 'backbone.'),
}


@pytest.mark.parametrize('wrapper', WRAPPED)
def test_wrapped_weights_of_a_classifier(tmp_path, wrapper):
    theirs = timm_vit()
    model = model_of(WRAPPED[wrapper](theirs.state_dict()), tmp_path)
    assert close(model(IMAGE), theirs(IMAGE))


@pytest.mark.parametrize('wrapper', BACKBONES)
@pytest.mark.parametrize('whole', [True, False])
def test_wrapped_weights_of_a_backbone(tmp_path, wrapper, whole):
    theirs = timm_vit()
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith('head.')}
    torch.save(BACKBONES[wrapper](state), tmp_path / 'file.pth')
    model = classifier(PLAIN) if whole else STViT(**PLAIN).eval()
    load_checkpoint(model, str(tmp_path / 'file.pth'))
    features = (model.backbone if whole else model)(IMAGE)[0]
    assert close(features, theirs.forward_features(IMAGE)[:, 0])


@pytest.mark.parametrize('names', [('model', 'model_ema'), ('state_dict', 'state_dict_ema'), ('teacher', 'student')])
def test_which_of_several_weights_is_taken_is_told(tmp_path, lines, names):
    theirs, other = timm_vit(), timm_vit()
    with torch.no_grad():
        other.pos_embed += 1
    state = {names[1]: other.state_dict(), names[0]: theirs.state_dict()}
    model = model_of(state, tmp_path)
    assert close(model(IMAGE), theirs(IMAGE))
    (line,) = [line for line in lines if 'taken' in line]
    assert line.endswith(f'{names[0]} is taken') and names[1] in line


def test_average_of_mmengine_is_taken_in_silence(tmp_path, lines):
    """Its hook writes the averaged weights into ``state_dict``."""
    theirs = timm_vit()
    ema = {'steps': torch.tensor(7), **prefixed(theirs.state_dict(), 'module.')}
    model = model_of({'state_dict': theirs.state_dict(), 'ema_state_dict': ema}, tmp_path)
    assert close(model(IMAGE), theirs(IMAGE)) and not any('taken' in line for line in lines)


def test_converted_wrapped_file_is_a_classifier():
    state = convert_published_state_dict({'model_ema': prefixed(timm_vit().state_dict(), '_orig_mod.')})
    assert set(state) == set(classifier(PLAIN).state_dict())
