"""Cut and reconstruct, beside its equations in plain loops."""

import math

import pytest
import torch

from mmstvit.functional.matching import soft_clusters
from mmstvit.layers.steps import Network, build_steps
from mmstvit.models import STViT

ARCH = dict(embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=48)


def cell_of(place, grid, cells):
    return tuple(y * m // n for y, n, m in zip(place, grid, cells, strict=True))


def places(grid):
    return [(y, x) for y in range(grid[0]) for x in range(grid[1])]


def shares(x, centers, allowed, sharpness):
    """softmax over the allowed centres of each point, by the image's scale."""
    square = [[float((point - center).square().sum()) for center in centers] for point in x]
    mean = sum(min(row[j] for j in those) for row, those in zip(square, allowed, strict=True)) / len(x)
    out = torch.zeros(len(x), len(centers))
    for i, those in enumerate(allowed):
        least = min(square[i][j] for j in those)
        weights = {j: math.exp(-sharpness * (square[i][j] - least) / mean) for j in those}
        for j, weight in weights.items():
            out[i, j] = weight / sum(weights.values())
    return out


def reference(x, size, grid, cells, iterations, neighbors, sharpness):
    """The shares of tokens in clusters, and what each token is reconstructed from, of one image."""
    home = [cell_of(place, grid, cells) for place in places(grid)]
    clusters = places(cells)
    near = [[j for j, c in enumerate(clusters) if max(abs(c[0] - h[0]), abs(c[1] - h[1])) <= 1] for h in home]
    share = torch.tensor([[float(c == h) for c in clusters] for h in home])
    for i in range(iterations + 1):
        weights = share * size
        centers = [sum(weights[i, j] * x[i] for i in range(len(x))) / weights[:, j].sum() for j in range(len(clusters))]
        if i < iterations:
            share = shares(x, centers, near, sharpness)
    square = torch.stack([(x - center).square().sum(dim=-1) for center in centers], dim=1)
    nearest = square.argsort(dim=1)[:, :neighbors].tolist()
    return share, shares(x, centers, nearest, sharpness)


@pytest.mark.parametrize('prefix', [0, 2])
@pytest.mark.parametrize(
    'iterations, neighbors, sharpness, sized', [(0, 1, 4.0, False), (1, 3, 0.7, True), (3, 100, 2.0, False)]
)
def test_clusters_are_those_of_the_equations(prefix, iterations, neighbors, sharpness, sized):
    grid, cells = (5, 7), (2, 3)
    torch.manual_seed(0)
    x = torch.randn(2, prefix + 35, 4, dtype=torch.float64).float()
    size = torch.randint(1, 4, (2, prefix + 35, 1)).float()
    reduction = soft_clusters(x, grid, cells, size if sized else None, prefix, iterations, neighbors, sharpness)
    y, z = torch.randn(2, prefix + 35, 3), torch.randn(2, prefix + 6, 3)
    merged, back = reduction.merge(y), reduction.unmerge(z)
    for b in range(2):
        weights = size[b, prefix:] if sized else torch.ones(35, 1)
        share, rows = reference(x[b, prefix:], weights, grid, cells, iterations, min(neighbors, 6), sharpness)
        assert torch.allclose(merged[b, prefix:], share.T @ y[b, prefix:], atol=1e-4)
        assert torch.allclose(back[b, prefix:], rows @ z[b, prefix:], atol=1e-4)
    assert torch.equal(merged[:, :prefix], y[:, :prefix]) and torch.equal(back[:, :prefix], z[:, :prefix])


def test_sizes_sum_to_the_patches_and_none_is_empty():
    """Also where a cell has nothing of its own: its tokens are what the cells beside it are made of."""
    values = torch.tensor([0.0, 0.0, 0.0, 9.0, 9.0, 9.0])  # the middle cell of three has one of each
    x = values[None, :, None].expand(1, 6, 4)
    reduction = soft_clusters(x, (1, 6), (1, 3), sharpness=100.0)
    sizes = reduction.merge(torch.ones(1, 6, 1))
    assert sizes.sum() == pytest.approx(6) and (sizes > 0).all()
    assert torch.allclose(reduction.unmerge(reduction.merge(x) / sizes), x, atol=1e-4)


def test_half_precision_has_no_empty_clusters():
    reduce = dict(type='Expedite', keep_rate=0.3, sharpness=1000.0)
    model = STViT(ARCH, 32, reduce, patch_size=4, out_type='featmap').eval().bfloat16()
    assert model(torch.randn(2, 3, 32, 40).bfloat16())[0].isfinite().all()


def test_where_and_how_often():
    """5 of 12 blocks by default; clusters can be clustered again."""
    steps = build_steps(dict(type='Expedite', keep_rate=0.25), Network(12, 24, (8, 8), 1))
    assert [type(step).__name__ for step in steps].index('Expedite') == 5
    model = STViT(ARCH, 32, dict(type='Expedite', keep_rate=0.25, blocks=[0, 2]), patch_size=4, out_type='featmap')
    kept = []
    for step in model.eval().encoder.steps:
        step.register_forward_hook(lambda step, args, tokens: kept.append(tokens))
    with torch.no_grad():
        assert model(torch.randn(1, 3, 32, 32))[0].shape == (1, 24, 8, 8)
    assert [tokens.x.shape[1] for tokens in kept] == [16, 16, 4, 4]
    assert [float(tokens.size.sum()) for tokens in kept] == pytest.approx([64] * 4)


@pytest.mark.parametrize(
    'options, line',
    [
        (dict(iterations=-1), 'iterations=-1 must be an integer of at least 0'),
        (dict(neighbors=0), 'neighbors=0 must be an integer of at least 1'),
        (dict(sharpness=0), 'sharpness=0 must be above 0'),
        (dict(sharpness='high'), "sharpness='high' must be above 0"),
    ],
)
def test_options_that_cannot_be(options, line):
    with pytest.raises(ValueError, match=line):
        build_steps(dict(type='Expedite', keep_rate=0.25, **options), Network(4, 24, (8, 8), 1))
