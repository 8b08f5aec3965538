"""Windows of any rank, size, stride and padding against naive loops, on cases that Hypothesis looks for."""

import itertools
import math

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmstvit.functional.windows import (
    HIDDEN,
    Boxes,
    keys_of_boxes,
    num_windows,
    partition,
    reverse,
    shifted_mask,
    valid_cells,
)
from mmstvit.layers.published_layout import keys_with_zeros
from mmstvit.layers.t2t import soft_split

CPU = torch.device('cpu')
# The same cases in each run: a test that fails now and then tells nobody anything.
found = settings(max_examples=150, deadline=None, derandomize=True)
RANKS = st.integers(1, 3)


def axes(rank, least, most):
    return st.tuples(*[st.integers(least, most)] * rank)


@st.composite
def windowed_grids(draw, most=7):
    rank = draw(RANKS)
    return draw(axes(rank, 1, most)), draw(axes(rank, 1, 4))


def cells_of(sizes):
    return itertools.product(*map(range, sizes))


@found
@given(windowed_grids(), st.integers(1, 3), st.floats(-9, 9, width=32), st.integers(0, 2))
def test_partition_and_reverse(case, batch, value, more):
    """Windows hold the cells that a loop puts there; putting them together gives the grid back, more windows or not."""
    grid, window = case
    x = torch.arange(float(batch * math.prod(grid) * 2)).reshape(batch, *grid, 2)
    counts = tuple(n + more for n in num_windows(grid, window))
    assert all((n - more - 1) * w < g <= (n - more) * w for n, w, g in zip(counts, window, grid))
    windows = partition(x, window, counts, value)
    assert torch.equal(reverse(windows, window, counts, grid), x)
    assert torch.equal(partition(reverse(windows, window, counts, grid), window, counts, value), windows)
    for number, place in enumerate(cells_of(counts)):
        for cell, offset in enumerate(cells_of(window)):
            at = tuple(p * w + o for p, w, o in zip(place, window, offset))
            inside = all(a < g for a, g in zip(at, grid))
            expected = x[(slice(None), *at)] if inside else torch.full((batch, 2), value)
            assert torch.equal(windows[:, number, cell], expected)


@found
@given(st.data())
def test_overlapping_windows(data):
    """Tokens of the soft split are the windows that a loop cuts out, channels first."""
    kernel, stride = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 5))
    padding = data.draw(st.integers(0, kernel // 2))
    height, width = (data.draw(st.integers(max(1, kernel - 2 * padding), 12)) for _ in range(2))
    x = torch.arange(1.0, 1 + 2 * height * width * 3).reshape(2, height, width, 3)
    padded = torch.zeros(2, height + 2 * padding, width + 2 * padding, 3)
    padded[:, padding : padding + height, padding : padding + width] = x
    rows, columns = ((n + 2 * padding - kernel) // stride + 1 for n in (height, width))
    expected = torch.empty(2, rows, columns, 3 * kernel * kernel)
    for i, j in cells_of((rows, columns)):
        cut = padded[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        expected[:, i, j] = cut.movedim(-1, 1).flatten(1)
    assert torch.equal(soft_split(x.movedim(-1, 1), kernel, stride, padding), expected)


@found
@given(windowed_grids(), st.booleans(), st.data())
def test_shifted_mask(case, exact, data):
    """After a shift, tokens see each other if both come from before the seam or both from behind it."""
    grid, window = case
    shift = tuple(data.draw(st.integers(0, w - 1)) for w in window)
    counts = num_windows(grid, window)
    padded = [n * w for n, w in zip(counts, window)]
    mask = shifted_mask(grid, window, counts, shift, exact, CPU)
    for number, place in enumerate(cells_of(counts)):
        at = [tuple(p * w + o for p, w, o in zip(place, window, offset)) for offset in cells_of(window)]
        side = [tuple(a >= n - s > 0 and s > 0 for a, n, s in zip(cell, padded, shift)) for cell in at]
        real = [all((a + s) % n < g for a, s, n, g in zip(cell, shift, padded, grid)) for cell in at]
        for query, key in itertools.product(range(len(at)), repeat=2):
            hidden = side[query] != side[key] or (exact and not real[key])
            assert (mask is not None and mask[number, 0, query, key].item() == HIDDEN) == hidden


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


@st.composite
def boxes(draw):
    rank = draw(RANKS)
    window, counts = draw(axes(rank, 1, 3)), (draw(st.integers(1, 7)), *draw(axes(rank - 1, 1, 2)))
    windowed = draw(st.booleans())
    step = window if windowed else (1,) * rank  # boxes end where windows of keys do
    before, after = (tuple(n * s for n, s in zip(draw(axes(rank, 0, 2)), step)) for _ in range(2))
    pads = tuple(draw(st.integers(0, w - 1)) for w in window)
    return window, counts, windowed, before, after, pads


@found
@given(boxes(), st.sampled_from(['exact', 'published', None]), st.booleans())
def test_keys_of_larger_windows(case, mask, may_band):
    """Attention to the keys that are gathered, under the mask, is that of a loop that cuts each box out."""
    window, counts, windowed, before, after, pads = case
    grid = tuple(n * w for n, w in zip(counts, window))
    real = tuple(g - p for g, p in zip(grid, pads))
    queries, channels = 2, 4
    torch.manual_seed(0)
    q, whole = torch.randn(1, math.prod(counts), queries, channels), torch.randn(1, *grid, 2 * channels)
    zero = torch.randn(1, 2 * channels)
    expected = naive_attention(q, whole.flatten(1, -2), zero, grid, counts, window, before, after, real, mask, pads)
    starts = tuple(tuple(i * w - b for i in range(n)) for n, w, b in zip(counts, window, before))
    ends = tuple(tuple((i + 1) * w + a for i in range(n)) for n, w, a in zip(counts, window, after))
    boxes = Boxes(starts, ends, queries, window, grid, real, windowed)
    keys, zeros = keys_of_boxes(boxes, may_band, CPU), None
    if mask != 'exact':
        keys, zeros = keys_with_zeros(boxes, may_band, CPU, pads if mask else None)
    given_keys = partition(whole, window, counts) if windowed else whole[(slice(None), *(slice(0, r) for r in real))]
    kv, bias = keys.arrange(given_keys), keys.bias
    if zeros is not None:
        kv = torch.cat((kv, zero[:, None, None].expand(-1, kv.shape[1], -1, -1)), 2)
        bias = torch.cat((bias, zeros), -1)
    k, v = kv.split(channels, -1)
    out = F.scaled_dot_product_attention(q.reshape(1, len(bias), -1, channels), k, v, bias[:, 0])
    assert torch.allclose(out.reshape(expected.shape), expected, atol=1e-5)


def test_one_group_where_asked_for():
    starts, ends = ((0, 1, 2, 3), (0,)), ((1, 2, 3, 4), (2,))
    boxes = Boxes(starts, ends, 1, (1, 2), (4, 2), (4, 2))
    banded, whole = (keys_of_boxes(boxes, may_band, CPU) for may_band in (True, False))
    assert banded.bias.shape == (4, 1, 1, 2) and whole.bias.shape == (1, 1, 4, 8)


@found
@given(windowed_grids(most=12), st.data())
def test_valid_cells(case, data):
    """A pooled cell is live where its bin begins at a real token; the live ones come first."""
    grid, window = case
    size = tuple(data.draw(st.integers(1, w)) for w in window)
    counts = num_windows(grid, window)
    for live, g, w, s, n in zip(valid_cells(grid, window, size), grid, window, size, counts):
        begins = [number * w + i * w // s < g for number in range(n) for i in range(s)]
        assert begins == [True] * live + [False] * (len(begins) - live)


def test_the_cases_differ():
    """Hypothesis draws ranks, masks and paddings of all kinds: the tests above are no single case."""
    seen = []

    @found
    @given(boxes())
    def look(case):
        seen.append(case)

    look()
    assert {len(case[0]) for case in seen} == {1, 2, 3} and {case[2] for case in seen} == {False, True}
    assert len(set(seen)) > 50 and any(any(case[5]) for case in seen)
