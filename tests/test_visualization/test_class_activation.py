"""Class activation: grad-cam's formula, spread over the image by the attention of the semantic tokens."""

import sys

import cv2
import numpy as np
import pytest
import torch
from run_helpers import TINY, run_here, says

from mmstvit import get_model
from mmstvit.layers.steps import Generation
from mmstvit.visualization import recording

pytest.importorskip('pytorch_grad_cam')

from mmstvit.visualization.class_activation import METHODS, class_activation  # noqa: E402

CLASSIFIERS = {
    'STViT': dict(),
    'STViT, class token': dict(with_cls_token=True, out_type='cls_token'),
    'STViT with recovery': dict(recover=True),
    'STViTSwin': dict(type='mmstvit.STViTSwin', semantic_size=2),
    'STViTR': dict(type='mmstvit.STViTR', semantic_size=2),
}
SWIN = dict(embed_dims=8, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 2))
IMAGE = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)


def config_text(name):
    options = dict(CLASSIFIERS[name])
    if 'type' in options:
        options.update(_delete_=True, arch=SWIN, window_size=3)
        extra = dict(backbone=options, neck=dict(type='GlobalAveragePooling'))
        head = dict(_delete_=True, type='LinearClsHead', num_classes=10, in_channels=64)
        return f"_base_ = ['mmstvit::digits/stvit-swin_digits.py']\nmodel = dict(head={head}, **{extra})\n"
    return TINY + f'model["backbone"].update({options})\n'


@pytest.fixture(scope='module', params=CLASSIFIERS)
def classifier(request, tmp_path_factory):
    path = tmp_path_factory.mktemp('classifier') / 'config.py'
    path.write_text(config_text(request.param))
    torch.manual_seed(0)
    return request.param, get_model(str(path))


def by_hand(name, model, inputs, target):
    """relu(sum over channels of the mean gradient times the activation), at the size of the image, from 0 to 1."""
    encoder = next(
        m for m in model.backbone.modules() if any(isinstance(s, Generation) for s in getattr(m, 'steps', ()))
    )
    layer = encoder.layers[-2 if 'class token' in name else -1]
    kept = {}

    def keep(module, args, output):
        kept['out'] = output
        output.retain_grad()

    handle = layer.register_forward_hook(keep)
    with recording(model) as recorder, torch.enable_grad():
        model(inputs)[0, target].backward()
    handle.remove()
    refine, out, grad = recorder.maps().layer('refine').attention, kept['out'].detach(), kept['out'].grad
    if name == 'STViT with recovery':
        activation, grad = (x.reshape(1, 4, 4, -1) for x in (out, grad))
    elif name == 'STViTR':
        activation = out
    else:
        # Tokens over the image: windows of 2 x 2 tokens, row by row, where there are windows.
        maps = torch.from_numpy(refine).flatten(1)
        rows = refine.shape[1:]
        spread = []
        for x in (out, grad):
            if x.dim() == 4:
                side = int(x.shape[1] ** 0.5)
                x = x.reshape(1, side, side, 2, 2, -1).permute(0, 1, 3, 2, 4, 5).flatten(1, 4)
            x = x[:, -len(maps) :]
            spread.append(torch.einsum('mn,bmc->bnc', maps, x).unflatten(1, rows))
        activation, grad = spread
    cam = (activation * grad.mean((1, 2), keepdim=True)).sum(-1)[0].relu().numpy()
    cam = cv2.resize(cam, tuple(reversed(inputs.shape[2:])))
    return (cam - cam.min()) / (cam.max() - cam.min())


def test_it_is_the_formula_of_grad_cam(classifier):
    name, model = classifier
    size = (32, 32) if name.startswith('STViT') and 'Swin' not in name and name != 'STViTR' else (96, 96)
    before = model(torch.ones(1, 3, *size))
    # For some classes nothing speaks in an image that means nothing.
    found = next(cam for target in range(10) if (cam := class_activation(model, IMAGE, target)).activation.any())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(before, model(torch.ones(1, 3, *size)))
    with recording(model) as recorder:
        shown = torch.from_numpy(found.image[..., ::-1].copy()).permute(2, 0, 1)
        model.test_step(dict(inputs=[shown], data_samples=[None]))
    expected = by_hand(name, model, recorder.inputs, found.target)
    assert found.activation.shape == found.image.shape[:2] == size and expected.max() > 0.5
    np.testing.assert_allclose(found.activation, expected, atol=2e-3)
    assert class_activation(model, IMAGE).target == found.result['pred_label']


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tiny')
    (folder / 'tiny.py').write_text(TINY)
    model = get_model(str(folder / 'tiny.py'))
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'tiny.pth')
    cv2.imwrite(str(folder / 'image.png'), IMAGE)
    return folder, model


@pytest.mark.parametrize('method', METHODS)
def test_methods(method, tiny):
    found = class_activation(tiny[1], IMAGE, method=method).activation
    assert found.shape == (32, 32) and found.min() >= 0 and found.max() <= 1 and np.ptp(found) > 0.5
    if method != 'GradCAM':
        assert not np.array_equal(found, class_activation(tiny[1], IMAGE).activation)


def test_frozen_weights_have_class_activation_too(tiny):
    expected = class_activation(tiny[1], IMAGE).activation
    tiny[1].requires_grad_(False)
    found = class_activation(tiny[1], IMAGE).activation
    tiny[1].requires_grad_(True)
    np.testing.assert_allclose(found, expected)


def test_what_cannot_be_done_is_refused(tiny, monkeypatch):
    model = tiny[1]
    with pytest.raises(ValueError, match="method='CAM' is unknown"):
        class_activation(model, IMAGE, method='CAM')
    with pytest.raises(ValueError, match='target=10: .* 0 to 9'):
        class_activation(model, IMAGE, target=10)
    with pytest.raises(ValueError, match="is for mmpretrain's ImageClassifier, not for STViT"):
        class_activation(model.backbone, IMAGE)
    monkeypatch.setitem(sys.modules, 'pytorch_grad_cam', None)
    with pytest.raises(ImportError, match=r"pytorch_grad_cam is needed .*: pip install 'mmstvit\[vis\]'"):
        class_activation(model, IMAGE)


def test_command(tiny, tmp_path, monkeypatch, capsys):
    folder = tiny[0]
    paths = [str(folder / name) for name in ('tiny.py', 'tiny.pth', 'image.png')]

    def run(*args):
        run_here(monkeypatch, 'visualization/show_cam.py', *paths, *args, '--show-dir', str(tmp_path))

    cv2.imwrite(str(folder / 'other.png'), IMAGE)
    run(str(folder / 'other.png'), '--target', '7')
    for name in ('image.png.png', 'other.png.png', 'contact_sheet.png'):
        assert cv2.imread(str(tmp_path / name)).std() > 20
    one = cv2.imread(str(tmp_path / 'image.png.png'))
    run('--target', '3')
    assert not np.array_equal(one, cv2.imread(str(tmp_path / 'image.png.png')))
    with pytest.raises(SystemExit):
        run('--target', '77')
    assert says(capsys.readouterr().err, 'error: target=77', '0 to 9')
    with pytest.raises(SystemExit):
        run('--target', 'seven')
    assert 'error: --target seven: there is no such class' in capsys.readouterr().err
