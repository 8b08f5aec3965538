"""Swin, STViT-R and T2T-ViT files through every way in, and the command that converts them."""

import json
import pickle

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import load_checkpoint
from published_files import classification_file, detection_file
from run_helpers import run_here
from safetensors.torch import load_file

from mmstvit import convert_published_state_dict, get_model, inference_model
from mmstvit.cli.convert import main
from mmstvit.cli.test import main as evaluate
from mmstvit.converters.recognise import backbone_of, looks_like
from mmstvit.datasets.digits import digit_scans
from mmstvit.models import STViT, STViTR, STViTSwin, T2TViT

ARCH = dict(embed_dims=8, depths=(2, 2, 6, 2), num_heads=(1, 1, 2, 2))
IMAGE = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def randomise(model):
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


CASES = {
    'swin': (lambda: STViTSwin(ARCH, semantic_size=None), classification_file),
    'swin-det': (lambda: STViTSwin(ARCH, semantic_size=None, out_indices=(0, 1, 2, 3)), detection_file),
    'stvit-r': (lambda: STViTR(ARCH), classification_file),
    'stvit-r-options': (
        lambda: STViTR(ARCH, use_global=True, relative_pos=True, conv_pos=True, semantic_size=3),
        classification_file,
    ),
    'stvit-r-det': (lambda: STViTR(ARCH, dense=True), detection_file),
    'stvit-r-det-options': (lambda: STViTR(ARCH, dense=True, relative_pos=True), detection_file),
}


# Files of classifiers have no prefix.
WAYS = [(case, way) for case in CASES for way in ('plain', 'init_cfg', 'load_from', *['prefix'] * ('det' in case))]


@pytest.mark.parametrize('case,way', WAYS)
def test_published_files_fill_the_backbone(case, way, tmp_path):
    make, file_of = CASES[case]
    source = randomise(make())
    file = file_of(source.state_dict())
    path = str(tmp_path / 'published.pth')
    torch.save(file, path)
    model = make()
    if way == 'plain':
        model.load_state_dict(next(iter(file.values())), strict=False)
    elif way == 'load_from':
        load_checkpoint(model, path)
    else:
        model.init_cfg = dict(
            type='Pretrained', checkpoint=path, **(dict(prefix='backbone.') if way == 'prefix' else {})
        )
        model.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize('case', CASES)
def test_the_backbone_that_a_file_fills_is_recognised(case):
    make, file_of = CASES[case]
    source = make()
    config = backbone_of(convert_published_state_dict(file_of(source.state_dict())))
    again = {'mmstvit.STViTSwin': STViTSwin, 'mmstvit.STViTR': STViTR}[config.pop('type')](**config)
    shapes = {name: value.shape for name, value in source.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes
    assert again.out_indices == source.out_indices


@pytest.mark.parametrize('t2t_type', ['transformer', 'performer'])
def test_the_t2t_vit_that_a_file_fills_is_recognised(t2t_type):
    arch = dict(embed_dims=128, num_layers=3, num_heads=2, feedforward_channels=256)
    source = T2TViT(arch, img_size=(64, 48), t2t_type=t2t_type, token_dims=8)
    config = backbone_of({f'backbone.{name}': value for name, value in source.state_dict().items()})
    assert config.pop('type') == 'mmstvit.T2TViT'
    shapes = {name: value.shape for name, value in source.state_dict().items()}
    assert {name: value.shape for name, value in T2TViT(**config).state_dict().items()} == shapes


def test_report_of_what_matched_and_what_did_not(matched):
    source = STViTR(ARCH, use_global=True)
    file = classification_file(source.state_dict())['model']
    del file['layers.3.blocks.0.norm1.weight']
    STViTR(ARCH).load_state_dict(file, strict=False)
    number = len(STViTR(ARCH).state_dict())
    told, _, left = matched().partition('unexpected: ')
    assert f'{number - 1} of {number}' in told and 'missing: stages.3.encoder.layers.0.norm1.weight' in told
    assert left == 'stages.2.encoder.steps.2.global_centers'


@pytest.mark.parametrize(
    'source,looks',
    [
        (lambda: STViTSwin(ARCH, semantic_size=None), 'Swin in the names of its authors'),
        (lambda: STViTR(ARCH), 'STViT-R in the names of its authors'),
    ],
)
def test_files_of_relatives_are_refused_by_a_plain_transformer(source, looks):
    arch = dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32)
    with pytest.raises(ValueError, match=f'of another model: 0 of .* it looks like {looks}; its names are head'):
        model = STViT(arch, stgm_layer=1)
        model.load_state_dict(classification_file({**source().state_dict(), 'head.fc.bias': torch.ones(3)})['model'])


def test_other_networks_are_named():
    models = pytest.importorskip('torchvision.models')
    assert looks_like(models.resnet18().state_dict()) == 'a ResNet'
    assert looks_like(models.convnext_tiny().state_dict()) == 'a ConvNet'
    assert looks_like(['visual.conv1.weight']) == 'a CLIP'
    assert looks_like(STViT().state_dict()) == 'a network of mmstvit of another kind'
    assert looks_like(['some.thing']) == 'nothing that mmstvit knows'


def test_t2t_of_mmpretrain_and_of_its_authors_have_the_same_names_here():
    models = pytest.importorskip('mmpretrain.models')
    theirs = models.T2T_ViT(
        img_size=64,
        embed_dims=16,
        num_layers=2,
        t2t_cfg=dict(token_dims=8),
        layer_cfgs=dict(num_heads=2, feedforward_channels=48),
    ).state_dict()
    theirs = {f'backbone.{name}': value for name, value in theirs.items()} | {'head.fc.bias': torch.ones(3)}
    converted = convert_published_state_dict(theirs)
    names = {name for name in converted if '.layers.' not in name and '.attention2.' not in name}
    first = 'backbone.patch_embed.attention1.'
    parts = ('norm1', 'norm2', 'attn.proj', 'mlp.fc1', 'mlp.fc2')
    assert names == {
        *(f'{first}{part}.{kind}' for part in parts for kind in ('weight', 'bias')),
        f'{first}attn.qkv.weight',
        *(f'backbone.{part}.{kind}' for part in ('patch_embed.projection', 'norm') for kind in ('weight', 'bias')),
        'backbone.cls_token',
        'backbone.pos_embed',
    }
    assert torch.equal(converted['head.layers.head.bias'], torch.ones(3))
    authors = {
        'tokens_to_token.attention1.kqv.bias': torch.arange(6.0),
        'tokens_to_token.attention2.w': torch.ones(2, 4),
    }
    authors |= {'tokens_to_token.project.weight': torch.ones(4, 4), 'blocks.0.attn.qkv.weight': torch.ones(12, 4)}
    authors |= {'pos_embed': torch.ones(1, 5, 4), 'cls_token': torch.ones(1, 1, 4)}
    converted = convert_published_state_dict({'state_dict_ema': authors})
    # key, query, value -> query, key, value
    assert converted[first + 'attn.qkv.bias'].tolist() == [2, 3, 0, 1, 4, 5]
    assert 'backbone.patch_embed.attention2.attn.features' in converted


DIGITS = """
_base_ = ['mmstvit::digits/stvit-r_digits.py']
model = dict(backbone=dict(arch=dict(embed_dims=8, depths=(2, 2, 6, 2), num_heads=(1, 1, 2, 2)), stem='conv'),
             head=dict(in_channels=64))
test_dataloader = dict(batch_size=50, dataset=dict(indices=150))
"""


def test_published_file_in_the_commands_and_in_python(web, tmp_path):
    """tools/test.py and inference_model give the same for our names and for theirs, from a path and a URL."""
    config = tmp_path / 'digits.py'
    config.write_text(DIGITS)
    model = randomise(get_model(config))
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'own.pth')
    torch.save(classification_file(model.state_dict()), web.folder / 'theirs.pth')
    top1 = []
    for checkpoint in (tmp_path / 'own.pth', web.url('theirs.pth')):
        out = tmp_path / 'metrics.json'
        evaluate([str(arg) for arg in (config, checkpoint, '--work-dir', tmp_path / 'w', '--out', out)])
        top1.append(json.loads(out.read_text())['accuracy/top1'])
    assert top1[0] == top1[1]
    image = digit_scans('val')[0][0][:, :, None].repeat(3, 2)
    own, theirs = (
        inference_model(config, path, image) for path in (str(tmp_path / 'own.pth'), str(web.folder / 'theirs.pth'))
    )
    assert own['pred_scores'].tolist() == theirs['pred_scores'].tolist()


def test_command(tmp_path, monkeypatch, capfd, fails):
    def convert(*args):
        run_here(monkeypatch, 'model_converters/published_to_mmstvit.py', *map(str, args))
        return capfd.readouterr().out.splitlines()

    source = randomise(STViTR(ARCH, dense=True))
    file = detection_file(source.state_dict())
    del file['state_dict']['backbone.norm1.bias']
    file['state_dict']['backbone.layers.0.blocks.0.extra'] = torch.ones(1)
    torch.save(file, tmp_path / 'theirs.pth')
    out = tmp_path / 'new' / 'ours.pth'
    lines = convert(tmp_path / 'theirs.pth', out)
    number = len(source.state_dict())
    for line in (
        f'backbone: {number - 1} of {number} tensors matched',
        'missing: norm1.bias',
        'unexpected: stages.0.encoder.layers.0.extra',
        'beside the backbone: neck (1 tensors), rpn_head (1 tensors)',
        f'written: {out}',
    ):
        assert line in lines
    assert [path.name for path in out.parent.iterdir()] == ['ours.pth']
    again = STViTR(ARCH, dense=True)
    load_checkpoint(again, str(out))
    assert torch.equal(
        again.stages[2].encoder.layers[1].attn.qkv.weight, source.stages[2].encoder.layers[1].attn.qkv.weight
    )

    before = out.read_bytes()
    assert '--overwrite' in fails(main, tmp_path / 'theirs.pth', out)
    assert out.read_bytes() == before
    convert(tmp_path / 'theirs.pth', out, '--overwrite')


@pytest.mark.parametrize('name', ['weights.pth', 'weights.safetensors'])
def test_plain_weights_of_a_training(name, tmp_path, monkeypatch, fails):
    """They keep their names, and are read where neither mmengine nor mmstvit is."""
    model = STViTSwin(ARCH)
    training = dict(
        state_dict=model.state_dict(),
        optimizer=dict(state={}),
        message_hub=dict(log_scalars=dict(loss=HistoryBuffer([1.0], [1]))),
        meta=dict(dataset_meta=dict(classes=('one', 'two')), cfg='...'),
    )
    torch.save(training, tmp_path / 'epoch_1.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    convert_tool = 'model_converters/published_to_mmstvit.py'
    run_here(monkeypatch, convert_tool, '--plain', str(tmp_path / 'epoch_1.pth'), str(tmp_path / name))
    if name.endswith('.pth'):
        plain = torch.load(tmp_path / name, weights_only=True)
        assert plain['meta'] == dict(dataset_meta=dict(classes=['one', 'two'])) and len(plain) == 2
        weights = plain['state_dict']
    else:
        weights = load_file(tmp_path / name)
    assert sorted(weights) == sorted(model.state_dict())
    assert all(weights[key].equal(value) for key, value in model.state_dict().items())
    torch.save(dict(epoch=1), tmp_path / 'none.pth')
    assert 'no checkpoint with weights' in fails(main, '--plain', tmp_path / 'none.pth', tmp_path / 'x.pth')


@pytest.mark.parametrize(
    'content,message',
    [
        ({'conv1.weight': torch.ones(1), 'layer1.0.conv1.weight': torch.ones(1)}, 'it looks like a ResNet'),
        (
            {'layers.0.blocks.0.attn.qkv.weight': torch.ones(1), 'layers.0.downsample.reduction.weight': torch.ones(1)},
            'incomplete',
        ),
        ('text', 'is no checkpoint'),
    ],
)
def test_command_refuses(tmp_path, content, message, fails):
    torch.save(content, tmp_path / 'file.pth')
    assert message in fails(main, tmp_path / 'file.pth', tmp_path / 'out.pth')
    assert not (tmp_path / 'out.pth').exists()
