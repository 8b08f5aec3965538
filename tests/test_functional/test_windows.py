"""Windows and keys against naive loops over cells, for grids of one, two and three axes."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from mmstvit.functional.windows import HIDDEN, keys_of_boxes, num_windows, partition, reverse, shifted_mask, valid_cells
from mmstvit.layers.published_layout import keys_with_zeros

CPU = torch.device('cpu')


@pytest.mark.parametrize('grid,window', [((7,), (3,)), ((6, 4), (3, 2)), ((5, 8), (4, 3)), ((3, 5, 4), (2, 3, 4))])
def test_partition_and_its_inverse(grid, window):
    x = torch.randn(2, *grid, 3)
    counts = num_windows(grid, window)
    assert counts == tuple(math.ceil(g / w) for g, w in zip(grid, window))
    windows = partition(x, window, counts, value=7.0)
    assert windows.shape == (2, math.prod(counts), math.prod(window), 3)
    assert torch.equal(reverse(windows, window, counts, grid), x)
    for number, place in enumerate(itertools.product(*(range(n) for n in counts))):
        for cell, offset in enumerate(itertools.product(*(range(w) for w in window))):
            at = tuple(p * w + o for p, w, o in zip(place, window, offset))
            inside = all(a < g for a, g in zip(at, grid))
            expected = x[(slice(None), *at)] if inside else torch.full((2, 3), 7.0)
            assert torch.equal(windows[:, number, cell], expected)


@pytest.mark.parametrize('grid', [(14, 14), (9, 13), (5, 30)])
@pytest.mark.parametrize('shift', [(0, 0), (3, 3)])
@pytest.mark.parametrize('exact', [False, True])
def test_shifted_windows_hide_what_was_not_near(grid, shift, exact):
    """Two tokens of a rolled window see each other if they lie on the same side of the seam, padding aside."""
    window, counts = (7, 7), num_windows(grid, (7, 7))
    mask = shifted_mask(grid, window, counts, shift, exact, CPU)
    padded = [n * 7 for n in counts]
    place = torch.stack(torch.meshgrid(*(torch.arange(p) for p in padded), indexing='ij'), -1)
    place = partition(place.roll([-s for s in shift], (0, 1))[None].float(), window, counts)[0]  # (G, 49, 2)
    seam = [(place[..., a] < s) & (s > 0) for a, s in enumerate(shift)]
    near = torch.stack([side[:, :, None] == side[:, None] for side in seam]).all(0)
    # Beyond the seam, tokens of the last window are cut off too where the shift moved them next to others.
    hidden = ~near
    if exact:
        hidden = hidden | (place[:, None, :, 0] >= grid[0]) | (place[:, None, :, 1] >= grid[1])
    if mask is None:
        assert not hidden.any()
    else:
        assert torch.equal(mask[:, 0] == HIDDEN, hidden)


def naive_attention(q, kv, zero, grid, counts, window, before, after, real, mask, pads):
    """Each query window on its own: cut its box out of the grid in zeros, hide what the rule says, and attend."""
    outs = []
    channels = q.shape[-1]
    for number, place in enumerate(itertools.product(*(range(n) for n in counts))):
        cells, shown = [], []
        ranges = [range(p * w - b, (p + 1) * w + a) for p, w, b, a in zip(place, window, before, after)]
        for at in itertools.product(*ranges):
            inside = all(0 <= a < g for a, g in zip(at, grid))
            is_real = inside and all(a < r for a, r in zip(at, real))
            cells.append(kv[:, list(itertools.product(*(range(g) for g in grid))).index(at)] if is_real else zero)
            if mask == 'exact':
                shown.append(is_real)
            elif mask is None:
                shown.append(True)
            else:
                live = torch.ones(grid, dtype=torch.bool)
                live[tuple(slice(-p, None) for p in pads)] = False
                shown.append(inside and bool(live[at]))
        if not any(shown):
            shown = [True] * len(shown)
        k, v = torch.stack(cells, 1).split(channels, -1)
        bias = torch.where(torch.tensor(shown), 0.0, float('-inf'))
        logits = q[:, number] @ k.transpose(1, 2) * channels**-0.5 + bias
        outs.append(logits.softmax(-1) @ v)
    return torch.stack(outs, 1)


def keys_of(mask, pads, *boxes):
    """Keys, and the bias of one for all zeros, or none."""
    if mask == 'exact':
        return keys_of_boxes(*boxes, CPU), None
    return keys_with_zeros(*boxes, CPU, pads if mask else None)


@pytest.mark.parametrize('mask', ['exact', 'published', None])
@pytest.mark.parametrize('windowed', [False, True])
@pytest.mark.parametrize(
    'counts,window,before,after,pads',
    [
        ((2, 3), (3, 3), (1, 1), (2, 2), (0, 0)),
        ((2, 3), (3, 3), (1, 1), (2, 2), (2, 0)),
        ((2, 3), (3, 3), (3, 3), (3, 3), (1, 2)),
        ((8, 2), (2, 3), (2, 3), (2, 3), (0, 1)),
        ((9, 2), (2, 2), (2, 2), (2, 2), (1, 1)),
        ((7, 2, 1), (2, 1, 2), (2, 1, 0), (2, 1, 0), (1, 0, 1)),
        ((6,), (2,), (2,), (2,), (1,)),
    ],
)
def test_keys_of_boxes_are_those_of_a_naive_loop(counts, window, before, after, pads, windowed, mask):
    torch.manual_seed(0)
    grid = tuple(n * w for n, w in zip(counts, window))
    real = tuple(g - p for g, p in zip(grid, pads))
    queries, channels = 2, 4
    q = torch.randn(2, math.prod(counts), queries, channels)
    whole = torch.randn(2, *grid, 2 * channels)
    zero = torch.randn(2, 2 * channels)
    expected = naive_attention(q, whole.flatten(1, -2), zero, grid, counts, window, before, after, real, mask, pads)
    starts = tuple(tuple(i * w - b for i in range(n)) for n, w, b in zip(counts, window, before))
    ends = tuple(tuple((i + 1) * w + a for i in range(n)) for n, w, a in zip(counts, window, after))
    keys, zeros = keys_of(mask, pads, starts, ends, queries, window, grid, real, windowed, True)
    assert (keys.band is not None) == (2 * (window[0] + before[0] + after[0]) <= real[0])
    given = partition(whole, window, counts) if windowed else whole[(slice(None), *(slice(0, r) for r in real))]
    kv, bias = keys.arrange(given), keys.bias
    if zeros is not None:
        kv = torch.cat((kv, zero[:, None, None].expand(-1, kv.shape[1], -1, -1)), 2)
        bias = torch.cat((bias, zeros), -1)
    k, v = kv.split(channels, -1)
    out = F.scaled_dot_product_attention(q.reshape(2, len(bias), -1, channels), k, v, bias[:, 0])
    assert torch.allclose(out.reshape(expected.shape), expected, atol=1e-5)


def test_one_group_where_asked_for():
    starts, ends = ((0, 1, 2, 3), (0,)), ((1, 2, 3, 4), (2,))
    banded = keys_of_boxes(starts, ends, 1, (1, 2), (4, 2), (4, 2), False, True, CPU)
    whole = keys_of_boxes(starts, ends, 1, (1, 2), (4, 2), (4, 2), False, False, CPU)
    assert banded.bias.shape == (4, 1, 1, 2) and whole.bias.shape == (1, 1, 4, 8)


@pytest.mark.parametrize('grid', [(14, 9), (7, 1), (3, 20)])
def test_valid_cells_have_a_real_token_in_their_bin(grid):
    window, size = (7, 7), (3, 3)
    for axis, live in enumerate(valid_cells(grid, window, size)):
        count = -(-grid[axis] // 7)
        starts = [w * 7 + i * 7 // 3 for w in range(count) for i in range(3)]
        assert live == sum(start < grid[axis] for start in starts)
