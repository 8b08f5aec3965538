"""Token reduction of models that users have changed, wrapped or built of several: it works, or a line says why not."""

import pytest
import torch
from test_reduction import IMAGE, SMALL, build_eva, build_hugging_face, build_mmpretrain, build_timm, out
from vits import METHODS

from mmstvit.layers.steps import Network, build_steps
from mmstvit.models import reduce_, restore_
from mmstvit.models.reduction import reduction_of

timm = pytest.importorskip('timm')
CONFIG = dict(hidden_size=24, num_hidden_layers=4, num_attention_heads=3, image_size=32, patch_size=4)


def build_backbone(kind, stages):
    transformers = pytest.importorskip('transformers')
    hidden = dict(intermediate_size=48) if kind == 'DINOv3ViT' else {}
    config = getattr(transformers, f'{kind}Config')(**CONFIG, **hidden, out_features=stages)
    torch.manual_seed(0)
    return getattr(transformers, f'{kind}Backbone')(config).eval()


@pytest.mark.parametrize('kind', ['Dinov2', 'Dinov2WithRegisters', 'DINOv3ViT'])
@pytest.mark.parametrize('method', ['ToMe', 'PiToMe', 'DPCKNN', 'GridPool', 'Expedite'])
def test_maps_of_several_stages_of_transformers(method, kind):
    """A patch that nothing was merged into has its place; stages before the first reduction are the dense ones."""
    model = build_backbone(kind, ['stage1', 'stage2', 'stage4'])
    with torch.no_grad():
        dense = model(IMAGE).feature_maps
        amount = dict(r=[0, 0, 8, 8]) if method in ('ToMe', 'PiToMe') else dict(keep_rate=0.5, blocks=[2])
        maps = reduce_(model, method, **amount)(IMAGE).feature_maps
    assert [one.shape for one in maps] == [(3, 24, 8, 8)] * 3
    assert all(torch.equal(a, b) for a, b in zip(maps[:2], dense[:2], strict=True))
    assert not torch.equal(maps[2], dense[2])
    assert torch.nn.functional.cosine_similarity(maps[2], dense[2]).mean() > 0.7


def hooked(model):
    model.blocks[0].attn.register_forward_hook(lambda *args: None)
    return model


def patched(model, module, name='forward'):
    module = model.get_submodule(module)
    run = getattr(module, name)
    setattr(module, name, lambda *args, **options: run(*args, **options))
    return model


def with_attention(name):
    model = build_hugging_face('ViT')
    model.config._attn_implementation = name
    return model


def that_returns_attentions():
    model = build_hugging_face('ViT')
    model.set_attn_implementation('eager')
    model.config.output_attentions = True
    return model


@pytest.mark.parametrize(
    'build, line',
    [
        (lambda: hooked(build_timm({})), 'Attention has hooks or a forward of its own'),
        (lambda: patched(build_timm({}), 'blocks.1.attn'), 'Attention has hooks or a forward of its own'),
        (lambda: patched(build_eva({}), 'blocks.1.attn'), 'has hooks or a forward of its own'),
        (lambda: patched(build_mmpretrain({}), 'layers.1.attn'), 'has hooks or a forward of its own'),
        (
            lambda: patched(build_hugging_face('ViT'), 'layers.1.attention'),
            'ViTAttention has hooks or a forward of its own',
        ),
        (lambda: patched(build_timm({}), 'blocks.1'), 'Block.forward was set on the module itself'),
        (
            lambda: patched(build_timm({}), '', 'forward_features'),
            'VisionTransformer.forward_features was set on the module itself',
        ),
        (lambda: patched(build_hugging_face('ViT'), 'embeddings'), 'ViTEmbeddings.forward was set on the module'),
        (lambda: with_attention('mine'), "attn_implementation='mine' does not go with token reduction"),
        (that_returns_attentions, 'output_attentions=True does not go with token reduction'),
        (
            lambda: torch.nn.ModuleDict(dict(student=build_timm({}), teacher=build_timm({}))),
            'ModuleDict has 2 vision transformers, student, teacher: reduce each by itself',
        ),
    ],
)
def test_what_would_be_passed_over_is_refused(build, line):
    model = build()
    state = [set(vars(module)) for module in model.modules()]
    with pytest.raises(ValueError, match=line) as error:
        reduce_(model, 'tome', r=1)
    assert '\n' not in str(error.value) and state == [set(vars(module)) for module in model.modules()]


@pytest.mark.parametrize('build', [build_timm, build_eva])
def test_the_scale_of_attention_is_that_of_the_block(build):
    model = build(dict(global_pool='token'))
    for block in model.blocks:
        block.attn.scale = 0.05
        block.attn.fused_attn = False  # the library's fused kernel takes no scale
    expected = out(model)
    assert torch.allclose(out(reduce_(model, 'tome', r=[0, 0, 0, 1])), expected, atol=1e-5)


def test_two_transformers_are_reduced_one_by_one():
    pair = torch.nn.ModuleDict(dict(student=build_timm({}), teacher=build_timm({})))
    reduce_(pair['student'], 'tome', r=8)
    reduce_(pair['teacher'], 'evit', keep_rate=0.5)
    assert (pair['student'].reduction.method, pair['teacher'].reduction.method) == ('ToMe', 'EViT')


def test_the_part_knows_of_the_reduction_of_the_whole(tmp_path):
    """It may be saved by itself, as a model is saved without what distributes it."""
    whole = torch.nn.Sequential(build_timm({}))
    dense = out(whole)
    reduce_(whole, 'tome', r=8)
    with pytest.raises(ValueError, match='reduced already'):
        reduce_(whole[0], 'evit', keep_rate=0.5)
    torch.save(whole[0], tmp_path / 'part.pth')
    part = torch.load(tmp_path / 'part.pth', weights_only=False)
    assert part.reduction.r == 8 and torch.equal(out(part), out(whole))
    assert torch.equal(out(restore_(part)), dense)
    assert torch.equal(out(restore_(whole)), dense) and reduction_of(whole[0]) is None


def test_options_are_kept_apart_from_the_lists_that_gave_them():
    amounts = [8] * 4
    model = reduce_(build_timm({}), 'tome', r=amounts)
    amounts[0] = 0
    assert model.reduction.r == (8, 8, 8, 8) and '64 -> 32 tokens' in model.reduction.summary


@pytest.mark.parametrize('method', ['ToMe', 'ATM', 'PiToMe', 'DPCKNN', 'GridPool', 'Expedite', 'TopK', 'EViT', 'ATS'])
def test_autocast_leaves_the_type_of_the_tokens(method):
    """The residual stream is in float32 in the dense network too."""
    model, types = build_timm({}), {}
    model.norm.register_forward_pre_hook(lambda module, args: types.update({method: args[0].dtype}))
    reduce_(model, method, **METHODS[method])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out(model)
    assert types == {method: torch.float32}


@pytest.mark.parametrize('method', ['EViT', 'ATS', 'TopK'])
def test_an_amount_that_removes_nothing_changes_nothing(method):
    """Of 64 tokens 0.99 are 64; no token is added and none is sampled twice."""
    model = build_timm({})
    expected = out(model)
    assert torch.allclose(out(reduce_(model, method, keep_rate=0.99)), expected, atol=1e-6)
    assert model.reduction.share == 1 and model.reduction.tokens == [64] * 4


@pytest.mark.parametrize('method', ['ToMe', 'GridPool', 'ToMeSD', 'Expedite'])
def test_patches_that_are_dropped_in_training(method):
    """Of those that are left no grid is known."""
    model = reduce_(build_timm(dict(patch_drop_rate=0.5)), method, **METHODS[method])
    assert out(model).isfinite().all()
    model.train()
    if method == 'ToMe':
        model(IMAGE).square().sum().backward()
        assert model.patch_embed.proj.weight.grad.isfinite().all()
        return
    with pytest.raises(ValueError, match='the grid of 32 patches is not known here'):
        model(IMAGE)


class Remembering(timm.models.vision_transformer.VisionTransformer):
    """Code of a user that keeps something aside."""

    def forward_features(self, x, **options):
        x = self._pos_embed(self.patch_embed(x))
        self.seen = self.norm(self.blocks(self.norm_pre(self.patch_drop(x))))
        return self.seen


def test_what_the_librarys_code_sets_is_set_on_the_model():
    model = Remembering(**SMALL).eval()
    model(IMAGE)
    assert model.seen.shape == (3, 65, 24)
    reduce_(model, 'tome', r=8)(IMAGE)
    assert model.seen.shape == (3, 65 - 4 * 8, 24)


@pytest.mark.parametrize('kind', ['ViT', 'DeiT'])
def test_images_are_made_of_all_patches(kind):
    transformers = pytest.importorskip('transformers')
    config = getattr(transformers, f'{kind}Config')(**CONFIG, intermediate_size=48, encoder_stride=4)
    model = getattr(transformers, f'{kind}ForMaskedImageModeling')(config).eval()
    with pytest.raises(ValueError, match='a map with a place for each patch, and the method drops tokens'):
        reduce_(model, 'evit', keep_rate=0.5)
    assert reduce_(model, 'tome', r=8)(IMAGE).reconstruction.shape == IMAGE.shape


@pytest.mark.parametrize('method', ['ToMe', 'ATM', 'PiToMe', 'DPCKNN', 'GridPool', 'Expedite'])
def test_sizes_have_no_gradients(method):
    """They do not depend on weights: no part of the backward pass is for them."""
    model, sizes = reduce_(build_timm({}), method, **METHODS[method]), []
    for step in model.reduction.steps:
        step.register_forward_hook(lambda step, args, tokens: sizes.append(tokens.size))
    model(IMAGE).sum().backward()
    assert any(size is not None for size in sizes) and not any(size.requires_grad for size in sizes if size is not None)


NETWORK = Network(4, 24, (8, 8), 1)


@pytest.mark.parametrize(
    'options, line',
    [
        (dict(r=True), 'r=True must be one number'),
        (dict(keep_rate=True), 'keep_rate=True must be one number'),
        (dict(budget=True), 'budget=True must be above 0'),
        (dict(r=8, to=True), 'to=True must be an integer'),
        (dict(r=8, proportional='no'), "proportional='no' must be True or False"),
        (dict(type='TopK', keep_rate=0.5, blocks=[1, 1]), r'blocks=\[1, 1\] must be numbers of some'),
        (dict(type='TopK', keep_rate=0.5, blocks=[1.0]), r'blocks=\[1.0\] must be numbers of some'),
        (dict(type='Random', keep_rate=0.5, seed='a'), "seed='a' must be an integer"),
        (dict(type='Random', keep_rate=0.5, seed=2**70), 'must be at least 0 and below'),
    ],
)
def test_options_of_the_wrong_kind(options, line):
    with pytest.raises(ValueError, match=line):
        build_steps(dict(dict(type='ToMe'), **options), NETWORK)


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip('numpy')
    for given, plain in ((numpy.int64(8), dict(r=8)), (numpy.float32(0.5), dict(keep_rate=0.5))):
        (name,) = plain
        steps = (build_steps(dict(type='ToMe', **options), NETWORK) for options in ({name: given}, plain))
        assert [step.amount for step in next(steps)] == [step.amount for step in next(steps)]
