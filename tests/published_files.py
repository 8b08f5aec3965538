"""Files in the names of the authors of Swin and STViT-R, made of our networks: the renaming turned round by hand."""

import re
from pathlib import Path

import pytest
import torch

_VECTORS = Path(__file__).resolve().parents[2] / 'shared' / 'reference_vectors'


def reference(name):
    """Weights in the published names, an input and the outputs of the authors' code, where such a file is at hand."""
    numpy = pytest.importorskip('numpy')
    path = _VECTORS / f'{name}.npz'
    if not path.is_file():
        pytest.skip('the reference outputs are not here')
    file = {key: torch.from_numpy(value) for key, value in numpy.load(path).items() if key != 'meta'}
    weights = {key.removeprefix('weights/'): value for key, value in file.items() if key.startswith('weights/')}
    return weights, file['input'], [file[key] for key in sorted(file) if key.startswith('output/')]


def published_names(state_dict):
    """Our names back to those of the authors of Swin and STViT-R: {ours: theirs} turned round by hand."""
    convs = {'0': '0.c', '1': '0.bn', '3': '2.c', '4': '2.bn'}
    theirs = {}
    for name, value in state_dict.items():
        name = re.sub(r'stages\.(\d)\.encoder\.layers\.', r'layers.\1.blocks.', name.removeprefix('backbone.'))
        name = re.sub(r'stages\.(\d)\.encoder\.steps\.2\.global_centers', r'layers.\1.semantic_token2', name)
        name = re.sub(r'stages\.(\d)\.encoder\.steps\.(\d+)\.conv', r'layers.\1.blocks.\2.conv_pos', name)
        name = re.sub(r'stages\.(\d)\.downsample', r'layers.\1.downsample', name)
        name = re.sub(r'patch_embed\.layers\.(\d)', lambda m: f'patch_embed.proj.{convs[m[1]]}', name)
        name = name.replace('patch_embed.projection', 'patch_embed.proj').replace('head.fc.', 'head.')
        if name.endswith('semantic_token2'):
            value = value.flatten(1, 2)
        if '.attn.qkv.' in name and re.match(r'layers\.2\.blocks\.(?!0\.|6\.|12\.)', name) and _is_unit(state_dict):
            channels = len(value) // 3
            theirs[name.replace('.qkv.', '.q.')] = value[:channels]
            theirs[name.replace('.qkv.', '.kv.')] = value[channels:]
            continue
        theirs[name] = value
        if name.endswith('relative_position_bias_table'):
            theirs[name.replace('bias_table', 'index')] = torch.zeros(49, 49, dtype=torch.long)
    return theirs


def _is_unit(state_dict):
    return not any(name.endswith('stages.2.encoder.layers.5.attn.relative_position_bias_table') for name in state_dict)


def classification_file(state_dict):
    """A checkpoint of the authors' classification code."""
    names = published_names(state_dict)
    return {'model': {re.sub(r'^norm3\.', 'norm.', name): value for name, value in names.items()}}


def detection_file(state_dict, heads=None):
    """A checkpoint of mmdet 2.x: a backbone under its prefix, and the other parts of a detector."""
    if heads is None:
        heads = {'neck.lateral_convs.0.conv.weight': torch.ones(4, 8, 1, 1), 'rpn_head.rpn_conv.bias': torch.ones(4)}
    return {'state_dict': {f'backbone.{name}': value for name, value in published_names(state_dict).items()} | heads}
