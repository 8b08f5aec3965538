import pytest
import torch

from mmstvit.functional.windows import adaptive_pool
from mmstvit.layers.block import TransformerBlock
from mmstvit.layers.embed import ConvStem, PatchEmbed
from mmstvit.layers.encoder import Encoder
from mmstvit.layers.layout import WholeImage
from mmstvit.layers.steps import Network
from mmstvit.layers.steps.stgm import stgm


def naive_pool(tokens: torch.Tensor, grid: tuple[int, int], pooling: str) -> torch.Tensor:
    """Each centre from the rows and columns floor(i n / m) to ceil((i + 1) n / m)."""
    _, height, width, _ = tokens.shape
    out = torch.empty(tokens.shape[0], *grid, tokens.shape[-1])
    for i in range(grid[0]):
        for j in range(grid[1]):
            rows = slice(i * height // grid[0], -(-(i + 1) * height // grid[0]))
            columns = slice(j * width // grid[1], -(-(j + 1) * width // grid[1]))
            window = tokens[:, rows, columns].flatten(1, 2)
            out[:, i, j] = window.amax(1) if pooling == 'max' else window.mean(1)
    return out


@pytest.mark.parametrize('pooling', ['max', 'avg'])
@pytest.mark.parametrize('source,target', [((14, 14), (4, 4)), ((14, 9), (6, 2)), ((5, 7), (5, 7)), ((3, 3), (4, 4))])
def test_pooling_windows_overlap_where_sizes_do_not_divide(source, target, pooling):
    tokens = torch.randn(2, *source, 3)
    assert torch.allclose(adaptive_pool(tokens, target, pooling), naive_pool(tokens, target, pooling), atol=1e-6)


def test_pooling_of_clips():
    tokens = torch.randn(2, 4, 6, 6, 3)
    expected = tokens.unflatten(1, (2, 2)).unflatten(3, (3, 2)).unflatten(5, (3, 2)).amax((2, 4, 6))
    assert torch.equal(adaptive_pool(tokens, (2, 3, 3), 'max'), expected)


def test_steps_of_the_layers():
    def names(*args, **options):
        return [type(step).__name__ for step in stgm(Network(*args, 8, (4, 4)), 2, **options)]

    before, after = ['SelfAttention'] * 2, ['SelfAttention'] * 2
    assert names(6, layer=2) == [*before, 'Generation', 'Refinement', *after]
    assert names(2, layer=0) == ['Generation', 'Refinement']
    assert names(4, layer=0, recover=True) == ['Generation', 'Refinement', 'SelfAttention', 'Recovery']
    with pytest.raises(ValueError, match='stgm_layer must be between 0 and 3'):
        names(6, layer=4, recover=True)
    for layer in (-1, 5):
        with pytest.raises(ValueError, match='between 0 and 4'):
            names(6, layer=layer)


@pytest.mark.parametrize('extra', [0, 1])
@pytest.mark.parametrize('use_global', [True, False])
def test_encoder_is_the_two_equations_of_the_paper(extra, use_global):
    """S1 = block(P, [P, X]), S2 = block(S1 + G, [S1, X]), and then S alone."""
    blocks = [TransformerBlock(8, 2, 16) for _ in range(5)]
    encoder = Encoder(blocks, stgm(Network(5, 8, (4, 5)), (2, 3), 2, 'avg', use_global)).eval()
    layout = WholeImage((4, 5), torch.device('cpu'), extra)
    x = torch.randn(2, extra + 20, 8)
    cls, image = x[:, :extra], x[:, extra:]

    tokens = blocks[1](blocks[0](x))
    cls, image = tokens[:, :extra], tokens[:, extra:]
    p = torch.cat((cls, adaptive_pool(image.reshape(2, 4, 5, 8), (2, 3), 'avg').reshape(2, 6, 8)), 1)
    s1 = blocks[2](p, (p, image))
    g = torch.zeros_like(s1)
    if use_global:
        g[:, extra:] = encoder.steps[3].global_centers.reshape(1, 6, 8)
    s2 = blocks[3](s1 + g, (s1, image))
    expected = blocks[4](s2)

    last, outs = encoder(x, layout, (1, 3, 4))
    assert torch.equal(last.x, outs[-1].x)
    assert [out.image is not None for out in outs] == [False, True, True]
    for out, wanted in zip(outs, (tokens, s2, expected), strict=True):
        assert torch.allclose(out.x, wanted, atol=1e-6)


@pytest.mark.parametrize('size,grid', [((32, 32), (8, 8)), ((33, 30), (9, 8)), ((1, 5), (1, 2))])
def test_patch_embedding_pads_to_whole_patches(size, grid):
    embed = PatchEmbed(3, 5, (4, 4))
    image = torch.randn(2, 3, *size)
    padded = torch.zeros(2, 3, grid[0] * 4, grid[1] * 4)
    padded[:, :, : size[0], : size[1]] = image
    assert embed.grid_of(size) == grid
    assert torch.equal(embed(image), embed.projection(padded).permute(0, 2, 3, 1))


def test_patches_need_not_be_square():
    embed = PatchEmbed(1, 5, (2, 8))
    image = torch.randn(1, 1, 4, 16)
    by_hand = image.reshape(2, 2, 2, 8).permute(0, 2, 1, 3).reshape(4, 16) @ embed.projection.weight.reshape(5, 16).T
    assert torch.allclose(embed(image).reshape(4, 5), by_hand + embed.projection.bias, atol=1e-6)


def test_stem_of_several_convolutions_at_each_resolution():
    """Strides, widths and the field of view are those of the definition."""
    stem = ConvStem(3, 8, num_convs=2, depth=3).eval()
    convs = [layer for layer in stem.layers if isinstance(layer, torch.nn.Conv2d)]
    assert [conv.stride[0] for conv in convs] == [2, 1, 1, 2, 1, 1]
    assert [(conv.in_channels, conv.out_channels) for conv in convs] == [(3, 4), (4, 4), (4, 4), (4, 8), (8, 8), (8, 8)]
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    tokens = stem(image)
    assert tokens.shape == (1, 16, 16, 8) == (1, *stem.grid_of((64, 64)), 8)
    tokens[0, 8, 8].sum().backward()
    seen = image.grad[0].abs().sum((0, 2)).nonzero().flatten()
    assert len(seen) == 1 + 2 * (1 + 2 + 2 + 2 + 4 + 4)  # each convolution adds its stride so far to either side
    with pytest.raises(ValueError, match='must be at least 1'):
        ConvStem(3, 8, depth=0)
