"""Each method against its equations, written out in loops over the tokens of one image."""

import math

import pytest
import torch
from published_files import reference
from torch.nn.functional import cosine_similarity

from mmstvit.functional.matching import (
    bipartite_soft_matching,
    cell_matching,
    density_peaks,
    energy_matching,
    grid_cells,
    size_matching,
)
from mmstvit.functional.scores import place_numbers, sample_inverse
from mmstvit.layers.block import TransformerBlock
from mmstvit.layers.layout import WholeImage
from mmstvit.layers.steps import METHODS, Network, build_steps
from mmstvit.layers.steps.ats import ATS
from mmstvit.layers.steps.base import Amount
from mmstvit.layers.steps.evit import EViT, TopK
from mmstvit.layers.steps.representation_shift import RepresentationShift
from mmstvit.layers.steps.tome import ToMe
from mmstvit.layers.steps.tomesd import ToMeSD
from mmstvit.layers.tokens import Tokens
from mmstvit.models import STViT

GRID = (4, 6)
ARCH = dict(embed_dims=24, num_layers=6, num_heads=3, feedforward_channels=48)


@pytest.fixture
def block():
    torch.manual_seed(0)
    block = TransformerBlock(12, 3, 24, layer_scale_init_value=0.5)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return block.eval()


def tokens_on_grid(prefix=1, grid=GRID, **fields):
    x = torch.randn(2, prefix + math.prod(grid), 12, generator=torch.Generator().manual_seed(1))
    return Tokens(x, WholeImage(grid, x.device, prefix), **fields)


def attend(block, x, bias=0.0):
    """Attention written out: the tokens after it (B, N, C), the map (B, heads, N, N), keys and values by heads."""
    q, k, v = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / 2 + bias).softmax(dim=-1)
    out = block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
    return x + block.layer_scale_1 * out, weights, k, v


def finish(block, x):
    return x + block.layer_scale_2 * block.mlp(block.norm2(x))


def places(reduction, count):
    """The token that each of ``count`` tokens went to, (B, count)."""
    ones = reduction.merge(torch.eye(count).expand(2, -1, -1))  # (B, M, count)
    assert torch.equal(ones.sum(dim=1), torch.ones(2, count))
    return ones.argmax(dim=1)


def groups(destination):
    return sorted([i for i in range(len(destination)) if destination[i] == m] for m in set(destination.tolist()))


# ------------------------------------------------------------------------------------------------------- dropping
@pytest.mark.parametrize('prefix', [1, 2])
def test_topk_and_evit(block, prefix):
    """Of 24 tokens ceil(0.7 x 24) = 17 are kept; the others times their attention are one more."""
    tokens = tokens_on_grid(prefix)
    x, weights, _, _ = attend(block, tokens.x)
    score = weights[:, :, 0].mean(dim=1)
    kept, fused = TopK(Amount(keep_rate=0.7))(block, tokens), EViT(Amount(keep_rate=0.7))(block, tokens)
    for b in range(2):
        ranked = sorted(range(prefix, prefix + 24), key=lambda i: -score[b, i])
        order = [*range(prefix), *sorted(ranked[:17])]
        one = sum(score[b, i] * x[b, i] for i in ranked[17:])
        assert torch.allclose(kept.x[b], finish(block, x[b, order]), atol=1e-5)
        assert torch.allclose(fused.x[b], finish(block, torch.cat((x[b, order], one[None]))), atol=1e-5)
        rows = fused.trace[0].unmerge(torch.eye(prefix + 18).expand(2, -1, -1))[b].argmax(dim=-1)
        assert sorted(ranked[17:]) == (rows == prefix + 17).nonzero().flatten().tolist()


def test_published_outputs_of_evit():
    """Outputs of the authors' code: keep rates 1, 0.7, 1, 0.7, 1 and the fused token."""
    weights, image, (counts, logits, tokens) = reference('evit_fuse')
    arch = dict(embed_dims=48, num_layers=5, num_heads=4, feedforward_channels=96)
    reduce = dict(type='EViT', keep_rate=[1, 0.7, 1, 0.7, 1])
    model = STViT(arch, 64, reduce, patch_size=8, with_cls_token=True, out_type='raw').eval()
    kept = []
    for step in model.encoder.steps:
        step.register_forward_hook(lambda step, args, tokens: kept.append(tokens.x.shape[1]))
    head = {name: weights.pop(name) for name in ('head.weight', 'head.bias')}
    model.load_state_dict(weights)
    with torch.no_grad():
        (out,) = model(image)
    assert [count - 1 for count in kept] == counts.tolist()
    assert torch.allclose(out[:, 0] @ head['head.weight'].T + head['head.bias'], logits, atol=1e-4 * logits.std())
    distance = (out[:, :, None] - tokens[:, None]).abs().amax(dim=-1)  # kept tokens are in another order
    assert distance.amin(dim=1).max() < 1e-5 and distance.amin(dim=2).max() < 1e-5


def test_ats(block):
    """The cumulative score sampled at (2 k - 1) / 2 K, nearest token each, duplicates once; then again on the rest."""
    step, prefix = ATS(Amount(keep_rate=0.9)), 1
    first = step(block, tokens_on_grid(prefix))
    second = step(block, first)
    for before, after in ((tokens_on_grid(prefix), first), (first, second)):
        size = torch.ones(2, before.x.shape[1]) if before.size is None else before.size[..., 0]
        x, weights, _, v = attend(block, before.x, size.log()[:, None, None])
        assert after.x.shape[1] == prefix + math.ceil(0.9 * (before.x.shape[1] - prefix))
        for b in range(2):
            there = [i for i in range(prefix, len(size[b])) if size[b, i]]
            score = [sum(weights[b, h, 0, i] * v[b, h, i].norm() for h in range(3)).item() for i in there]
            heights = [sum(score[: n + 1]) / sum(score) for n in range(len(score))]
            count, chosen = after.x.shape[1] - prefix, []
            for k in range(1, count + 1):
                point = (2 * k - 1) / (2 * count)
                nearest = min(range(len(there)), key=lambda n: abs(heights[n] - point))
                chosen += [there[nearest]] if there[nearest] not in chosen else []
            valid = after.size[b, :, 0] == 1
            assert valid.sum() == prefix + len(chosen) and not after.size[b, ~valid].any()
            assert torch.allclose(after.x[b, valid], finish(block, x[b, [0, *chosen]]), atol=1e-4)
    assert (first.size == 0).any()  # or nothing was tested of duplicates


def test_samples_that_count_once():
    """Heights 0.1, 0.9, 0.95 and 1 at the points 1/8, 3/8, 5/8 and 7/8."""
    chosen, first = sample_inverse(torch.tensor([[2.0, 16.0, 1.0, 1.0]]), 4)
    assert chosen.tolist() == [[0, 0, 1, 1]] and first.tolist() == [[True, False, True, False]]
    chosen, first = sample_inverse(torch.tensor([[2.0, 16.0, 1.0, 1.0]]), 2, torch.tensor([[True, False, False, True]]))
    assert chosen.tolist() == [[0, 3]] and first.all()


def test_representation_shift(block):
    """Of 24 tokens ceil(0.8 x 24) = 20 with the largest || MLP(LN x) - x || are kept, after the MLP."""
    tokens = tokens_on_grid(0)
    x, *_ = attend(block, tokens.x)
    after = RepresentationShift(Amount(keep_rate=0.8))(block, tokens)
    for b in range(2):
        shift = [(block.layer_scale_2 * block.mlp(block.norm2(x[b, i])) - x[b, i]).norm() for i in range(24)]
        order = sorted(sorted(range(24), key=lambda i: -shift[i])[:20])
        assert torch.allclose(after.x[b], finish(block, x[b, order]), atol=1e-4)


@pytest.mark.parametrize('method', ['TopK', 'ATS', 'RepresentationShift', 'Random'])
def test_dropped_tokens_are_put_back_before_the_last_block(method):
    """With weights of zeros all blocks are the identity: what comes out is what went in."""
    options = dict(patch_size=4, with_cls_token=True, out_type='raw', final_norm=False)
    torch.manual_seed(0)
    model = STViT(ARCH, 32, dict(type=method, keep_rate=[0.9, 0.5, 1, 0.5, 0.5, 1], fuse_last=True), **options).eval()
    plain = STViT(ARCH, 32, None, **options).eval()
    plain.load_state_dict(model.state_dict())
    image = torch.randn(2, 3, 32, 32)
    assert model(image)[0].shape == plain(image)[0].shape and not torch.equal(model(image)[0], plain(image)[0])
    for network in (model, plain):
        network.load_state_dict(plain.state_dict())
        for layer in network.encoder.layers:
            for linear in (layer.attn.proj, layer.mlp.fc2):
                torch.nn.init.zeros_(linear.weight)
                torch.nn.init.zeros_(linear.bias)
    assert torch.allclose(model(image)[0], plain(image)[0], atol=1e-6)
    with pytest.raises(ValueError, match='in the last block'):
        STViT(ARCH, 32, dict(type=method, keep_rate=[0.5] * 6, fuse_last=True), **options)


def test_random_places_are_seeded():
    steps = [build_steps(dict(type='Random', keep_rate=0.5, seed=seed), Network(12, 12, GRID, 1)) for seed in (0, 0, 1)]
    block = TransformerBlock(12, 3, 24)
    a, b, c = (torch.cat([step(block, tokens_on_grid()).x for step in (row[3], row[6])]) for row in steps)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert not torch.equal(a[:2], a[2:])  # another place in each block
    numbers = torch.stack([place_numbers(200, seed) for seed in range(300)]).double()
    ranks = numbers.argsort(dim=1).argsort(dim=1).double()
    assert (ranks.mean(dim=0) - 99.5).abs().max() < 5 * 57.7 / 300**0.5  # no place is preferred
    assert torch.corrcoef(ranks.T).fill_diagonal_(0).abs().max() < 6 / 300**0.5


# -------------------------------------------------------------------------------------------------------- merging
@pytest.mark.parametrize('prefix', [0, 1, 2])
@pytest.mark.parametrize('margin, r', [(0.9, 5), (0.2, 12), (0.45, 0)])
def test_pitome(prefix, margin, r):
    metric = torch.randn(2, prefix + 25, 4, generator=torch.Generator().manual_seed(r))
    found = places(energy_matching(metric, r, margin, prefix), prefix + 25)
    for b in range(2):
        rest = range(prefix, prefix + 25)
        cosine = [
            [float(cosine_similarity(metric[b, i], metric[b, j], dim=0)) for j in range(prefix + 25)]
            for i in range(prefix + 25)
        ]
        energy = {
            i: sum(c if c >= margin else math.exp(c - margin) - 1 for c in (cosine[i][j] for j in rest)) / 25
            for i in rest
        }
        order = sorted(rest, key=lambda i: -energy[i])
        side_a, side_b = order[: 2 * r : 2], order[1 : 2 * r : 2]
        into = {i: max(side_b, key=lambda j: cosine[i][j]) for i in side_a}
        expected = groups(torch.tensor([into.get(i, i) for i in range(prefix + 25)]))
        assert groups(found[b]) == expected
        stays = [i for i in range(prefix + 25) if i not in into]
        assert found[b, stays].tolist() == list(range(len(stays)))  # in their old order


@pytest.mark.parametrize('prefix', [0, 1])
@pytest.mark.parametrize('total, r', [(20, 6), (9, 4), (9, 0)])
def test_matching_by_size(prefix, total, r):
    generator = torch.Generator().manual_seed(total + r)
    metric = torch.randn(2, prefix + total, 4, generator=generator)
    size = torch.randint(1, 4, (2, prefix + total, 1), generator=generator)
    found = places(size_matching(metric, size.float(), r, prefix), prefix + total)
    for b in range(2):
        order = sorted(range(prefix, prefix + total), key=lambda i: (-int(size[b, i]), i))
        large, small = order[: total - total // 2], order[total - total // 2 :]
        cosine = {i: [float(cosine_similarity(metric[b, i], metric[b, j], dim=0)) for j in large] for i in small}
        into = {i: large[cosine[i].index(max(cosine[i]))] for i in sorted(small, key=lambda i: -max(cosine[i]))[:r]}
        assert groups(found[b]) == groups(torch.tensor([into.get(i, i) for i in range(prefix + total)]))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_order_of_sizes_in_half_precision(dtype):
    """Of equal sizes the first counts as larger, however large they and the image are."""
    metric = torch.randn(1, 576, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    few, many = (places(size_matching(metric, torch.full((1, 576, 1), n, dtype=dtype), 200), 576) for n in (1, 200))
    assert torch.equal(few, many) and set(few[0].tolist()) == set(range(376))
    larger = few[0, :288]
    assert torch.equal(larger, torch.arange(288))


@pytest.mark.parametrize('prefix', [0, 1])
@pytest.mark.parametrize('total, count', [(20, 7), (20, 20), (4, 2), (9, 1)])
def test_density_peaks(prefix, total, count):
    x = torch.randn(2, prefix + total, 6, generator=torch.Generator().manual_seed(total))
    found = places(density_peaks(x, count, prefix), prefix + total)
    for b in range(2):
        points = x[b, prefix:]
        distance = [[float((p - q).norm()) / 6**0.5 for q in points] for p in points]
        density = []
        for i in range(total):
            near = sorted(distance[i][j] for j in range(total) if j != i)[:5]
            density.append(math.exp(-sum(d * d for d in near) / len(near)))
        largest = max(max(row) for row in distance)
        delta = [
            min((distance[i][j] for j in range(total) if density[j] > density[i]), default=largest)
            for i in range(total)
        ]
        centers = sorted(range(total), key=lambda i: -density[i] * delta[i])[:count]
        joined = [prefix + (i if i in centers else min(centers, key=lambda c: distance[i][c])) for i in range(total)]
        assert groups(found[b]) == groups(torch.tensor([*range(prefix), *joined]))


@pytest.mark.parametrize('grid, cells', [((4, 6), 6), ((5, 3), 6), ((2, 3, 4), 8)])
@pytest.mark.parametrize('prefix', [0, 1])
def test_matching_in_cells(grid, cells, prefix):
    total, r = math.prod(grid), math.prod(grid) - cells - 2
    metric = torch.randn(2, prefix + total, 4, generator=torch.Generator().manual_seed(total))
    found = places(cell_matching(metric, grid, r, prefix), prefix + total)
    where = [divmod(i % (grid[-2] * grid[-1]), grid[-1]) for i in range(total)]
    first = [prefix + i for i, (y, x) in enumerate(where) if y % 2 == 0 and x % 2 == 0]
    assert len(first) == cells
    for b in range(2):
        edges = []
        for i in range(prefix, prefix + total):
            if i not in first:
                similar = {j: float(cosine_similarity(metric[b, i], metric[b, j], dim=0)) for j in first}
                edges.append((max(similar.values()), i, max(similar, key=similar.get)))
        into = {i: j for _, i, j in sorted(edges, reverse=True)[:r]}
        assert groups(found[b]) == groups(torch.tensor([into.get(i, i) for i in range(prefix + total)]))


def test_dense_merging_attends_on_merged_tokens(block):
    tokens = tokens_on_grid()
    after = ToMeSD(Amount(r=10))(block, tokens)
    found = places(cell_matching(tokens.x, GRID, 10, 1), 25)
    for b in range(2):
        members = [tokens.x[b, found[b] == m] for m in range(15)]
        merged = torch.stack([x.mean(dim=0) for x in members])
        bias = torch.tensor([math.log(len(x)) for x in members])
        out, *_ = attend(block, merged[None], bias)
        expected = torch.stack([tokens.x[b, i] + (out[0] - merged)[found[b, i]] for i in range(25)])
        assert torch.allclose(after.x[b], finish(block, expected), atol=1e-5)
    assert after.size is None and after.trace == ()


@pytest.mark.parametrize('grid, cells', [((4, 6), (2, 3)), ((5, 7), (3, 4)), ((3, 5, 4), (2, 5, 1))])
def test_grid_cells(grid, cells):
    found = places(grid_cells(grid, cells, 2, 1, torch.device('cpu')), 1 + math.prod(grid))
    assert found[0, 0] == 0
    for place, index in zip(found[0, 1:], torch.cartesian_prod(*map(torch.arange, grid))):
        cell = [int(y) * m // n for y, m, n in zip(index, cells, grid)]
        number = 0
        for c, m in zip(cell, cells):
            number = number * m + c
        assert place == 1 + number


@pytest.mark.parametrize('mode', ['mean', 'mlerp', 'drop'])
def test_what_takes_the_place_of_merged_tokens(block, mode):
    size = torch.randint(1, 4, (2, 25, 1), generator=torch.Generator().manual_seed(0)).float()
    tokens = tokens_on_grid(size=size)
    x, _, k, _ = attend(block, tokens.x, size.log().transpose(1, 2)[:, None])
    after = ToMe(Amount(r=12), mode=mode)(block, tokens)
    found = places(after.trace[0], 25)
    for b in range(2):
        expected = []
        for m in range(13):
            members = [i for i in range(25) if found[b, i] == m]
            mean = sum(size[b, i] * x[b, i] for i in members) / sum(size[b, i] for i in members)
            if mode == 'mlerp' and len(members) > 1:
                mean = mean / mean.norm() * max(x[b, i].norm() for i in members)
            if mode == 'drop' and len(members) > 1:
                (odd,) = (i for i in members if i % 2)
                mean = x[b, odd]
            expected.append(mean)
            assert after.size[b, m] == sum(size[b, i] for i in members)
        assert torch.allclose(after.x[b], finish(block, torch.stack(expected)), atol=1e-5)


def test_tofu_drops_first_and_merges_later():
    steps = build_steps(dict(type='ToMe', r=2, mode='tofu'), Network(6, 12, GRID, 1))
    assert [step.mode for step in steps] == ['drop'] * 3 + ['mlerp'] * 3
    with pytest.raises(ValueError, match="mode='max' is unknown, choose from"):
        build_steps(dict(type='ToMe', r=2, mode='max'), Network(6, 12, GRID, 1))


# Of tokens that are each there four times, side by side, what merges two or four of them.
QUARTER = {
    'ToMe': dict(r=[32, 0, 0, 0, 0, 0]),
    'ATM': dict(r=[16, 16, 0, 0, 0, 0], by_size=1),
    'PiToMe': dict(keep_rate=[0.5, 0.5, 1, 1, 1, 1]),
    'DPCKNN': dict(keep_rate=[0.25, 1, 1, 1, 1, 1]),
    'GridPool': dict(keep_rate=[0.25, 1, 1, 1, 1, 1]),
    'ToMeSD': dict(keep_rate=[0.25, 1, 0.25, 1, 1, 1]),
    'Expedite': dict(keep_rate=[0.25, 1, 1, 1, 1, 1]),
}
MODES = [(method, {}) for method in QUARTER] + [('ToMe', dict(mode=mode)) for mode in ('mlerp', 'drop', 'tofu')]


@pytest.mark.parametrize('method, options', MODES)
def test_equal_tokens_that_merge_change_nothing(method, options):
    """A token that stands for equal ones weighs as all of them did, and not without proportional attention."""
    torch.manual_seed(0)
    settings = dict(patch_size=4, position='sinusoid', with_cls_token=True, out_type='cls_token')
    options = dict(type=method, **QUARTER[method], **options)
    models = [STViT(ARCH, 32, reduce, **settings) for reduce in (None, options, dict(options, proportional=False))]
    weights = {name: 0.3 * torch.randn_like(value) for name, value in models[0].state_dict().items()}
    weights['pos_embed'].zero_()
    image = torch.randn(2, 3, 4, 4, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)  # (B, 3, rows, columns, 4, 4)
    image = image.transpose(3, 4).flatten(4, 5).flatten(2, 3)
    for model in models:
        model.eval().load_state_dict(weights)
    plain, merging, without = (model(image)[0] for model in models)
    assert torch.allclose(merging, plain, atol=1e-5)
    assert (without - plain).abs().max() > 1e-3


@pytest.mark.parametrize('method', [method for method in METHODS if method != 'STGM'])
def test_clips(method):
    """Tubelets are tokens as patches are: the same steps, and features of the clip's shape."""
    torch.manual_seed(0)
    reduce = dict(type=method, keep_rate=[1, 0.6, 1, 0.8, 1, 1])
    model = STViT(
        ARCH, (4, 16, 16), reduce, patch_size=(2, 4, 4), with_cls_token=True, out_type='featmap', final_norm=False
    ).eval()
    clip = torch.randn(2, 3, 6, 16, 12)
    out = model(clip)
    assert out.shape == (2, 24, 3, 4, 3) and out.isfinite().all()
    assert torch.allclose(out[:1], model(clip[:1]), atol=1e-5)


def test_class_attention_is_that_of_the_block_in_clips(block):
    """The class token weighs more in a clip, where patches come more often; the score knows it."""
    tokens = tokens_on_grid(grid=(3, 2, 4))
    bias = tokens.layout.image_attention(tokens.x).bias
    assert bias is not None
    _, weights, _, _ = attend(block, tokens.x, bias)
    seen = {}

    class Look(TopK):
        def score(self, tokens, q, k, v):
            seen['score'] = super().score(tokens, q, k, v)
            return seen['score']

    Look(Amount(r=3))(block, tokens)
    assert torch.allclose(seen['score'], weights[:, :, 0].mean(dim=1)[:, 1:], atol=1e-6)


@pytest.mark.parametrize('method', ['TopK', 'EViT', 'ATS'])
def test_no_class_token(method):
    with pytest.raises(ValueError, match=f'{method} .* class token: it needs'):
        STViT(ARCH, 32, dict(type=method, keep_rate=0.5), patch_size=4)


@pytest.mark.parametrize('method', ['TopK', 'EViT', 'ATS', 'RepresentationShift', 'Random', 'DPCKNN', 'GridPool'])
def test_at_least_one_token_is_kept(method):
    model = STViT(ARCH, 32, dict(type=method, r=1000), patch_size=4, with_cls_token=True).eval()
    assert model(torch.randn(1, 3, 32, 32))[0].isfinite().all()


def test_counts_stay_open_in_exported_graphs():
    """Of a matching with batch and tokens left open, decomposed as for ONNX: no count becomes a constant."""

    class Merging(torch.nn.Module):
        def forward(self, x):
            return bipartite_soft_matching(x, x.shape[1] // 4, 1).merge(x)

    axes = (dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC),)
    exported = torch.export.export(Merging(), (torch.randn(2, 21, 4),), dynamic_shapes=axes, strict=False)
    other = torch.randn(3, 34, 4)
    assert torch.allclose(exported.run_decompositions().module()(other), Merging()(other), atol=1e-6)
