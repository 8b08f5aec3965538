"""A unit of STViT-R against its equations written out: every window's keys copied, normed, projected and masked."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmstvit.functional.windows import valid_cells
from mmstvit.layers.attention import relative_position_index
from mmstvit.layers.block import TransformerBlock
from mmstvit.layers.encoder import Encoder
from mmstvit.layers.published_layout import PublishedWindows
from mmstvit.layers.steps import Generation, Recovery, Refinement, SelfAttention
from mmstvit.layers.window_layout import PaddedWindows, StretchedWindows, WindowSpec

W, S, C, HEADS = 7, 3, 8, 2


def attend(block, query, keys, mask=None, shortcut=True):
    """One layer, (..., n, C) and (..., m, C); ``mask`` is added to the logits."""
    q_part, kv_part = block.attn.qkv.weight.split((C, 2 * C))
    q_bias, kv_bias = block.attn.qkv.bias.split((C, 2 * C))
    q = F.linear(block.norm1(query), q_part, q_bias)
    k, v = F.linear(block.norm1(keys), kv_part, kv_bias).chunk(2, dim=-1)
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(-3, -2) for t in (q, k, v))
    logits = q @ k.transpose(-2, -1) / math.sqrt(C // HEADS)
    if block.attn.relative_window is not None:
        table = block.attn.relative_position_bias_table
        index = relative_position_index(block.attn.relative_window, block.attn.relative_window)
        logits = logits + table[index].permute(2, 0, 1)
    if mask is not None:
        logits = logits + mask
    out = block.attn.proj((logits.softmax(-1) @ v).transpose(-3, -2).flatten(-2)) * block.layer_scale_1
    out = query + out if shortcut else out
    return out + block.mlp(block.norm2(out)) * block.layer_scale_2


def pool(windows):
    """(B, rows, columns, W, W, C) -> (B, rows, columns, S, S, C), the maximum of rows 0-2, 2-4, 4-6."""
    bins = [slice(i * W // S, -(-(i + 1) * W // S)) for i in range(S)]
    cells = [[windows[:, :, :, r, c].amax((3, 4)) for c in bins] for r in bins]
    return torch.stack([torch.stack(row, 3) for row in cells], 3)


def cut(x, size, step, before=0, after=0, value=0.0):
    """Overlapping windows of a grid: (B, H, W, C) -> (B, rows, columns, size, size, C)."""
    x = F.pad(x, (0, 0, before, after, before, after), value=value)
    return x.unfold(1, size, step).unfold(2, size, step).permute(0, 1, 2, 4, 5, 3)


def lay_out(windows):
    """Windows that touch each other back to their grid."""
    return windows.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)


def hidden(kind, shape, pads, real, around):
    """The mask over a grid of ``shape``, surrounded with what is outside, as windows (rows, columns, 1, 1, keys)."""
    mask = torch.zeros(1, *shape, 1)
    if kind == 'published':
        mask[:, -pads[0] :, -pads[1] :] = -1000
    elif kind == 'exact':
        mask[:] = -1e9
        mask[:, : real[0], : real[1]] = 0
    outside = {'published': -1000, 'exact': -1e9, None: 0}[kind]
    return cut(mask, **around, value=outside)[0].flatten(2)[:, :, None, None]


def dense_unit(blocks, x, mask, shortcut, conv):
    """(B, H, W, C) -> the semantic tokens before recovery and the recovered image tokens."""
    generate, refine, local, semantic, recover = blocks
    grid, pads = x.shape[1:3], [-n % W for n in x.shape[1:3]]
    shape = [n + p for n, p in zip(grid, pads)]
    padded = F.pad(x, (0, 0, 0, pads[1], 0, pads[0]))
    first = F.pad(x, (0, 0, 0, pads[1], 0, pads[0]), value=-1e9) if mask == 'exact' else padded
    s = pool(cut(first, W, W))
    s = torch.where(s < -1e8, 0.0, s)
    if conv is not None:
        s = s + conv.proj(s.flatten(0, 2).movedim(-1, 1)).movedim(1, -1).reshape(s.shape)
    s = s.flatten(3, 4)
    for block, before, after, add in ((generate, 3, 4, shortcut), (refine, 7, 7, True)):
        around = dict(size=W + before + after, step=W, before=before, after=after)
        keys = cut(padded, **around).flatten(3, 4)
        # (rows, columns, 1, 1, keys), heads and queries in the middle
        s = attend(block, s, keys, hidden(mask, shape, pads, grid, around), add)
    live = valid_cells(grid, (W, W), (S, S)) if mask == 'exact' else [n * S // W for n in shape]
    cells = [n * S // W for n in shape]
    kind = 'exact' if mask == 'exact' else None
    s = attend(local, s, s, hidden(kind, cells, pads, live, dict(size=S, step=S)))
    everywhere = lay_out(s.unflatten(3, (S, S))).flatten(1, 2)
    dead = torch.full(cells, -1e9 if mask == 'exact' else 0.0)
    dead[: live[0], : live[1]] = 0
    everywhere = attend(semantic, everywhere, everywhere, dead.flatten())
    around = dict(size=S * 9, step=S, before=S * 4, after=S * 4)
    keys = cut(everywhere.unflatten(1, cells), **around).flatten(3, 4)
    image = attend(recover, cut(padded, W, W).flatten(3, 4), keys, hidden(mask, cells, pads, live, around))
    return lay_out(image.unflatten(3, (W, W)))[:, : grid[0], : grid[1]]


def fixed_unit(blocks, x, shortcut, conv, centers):
    """The classification form, 14 x 14 image tokens."""
    generate, refine, local, semantic, recover = blocks
    s = pool(cut(x, W, W))
    if conv is not None:
        s = s + conv.proj(s.flatten(0, 2).movedim(-1, 1)).movedim(1, -1).reshape(s.shape)
    s = s.flatten(3, 4)
    # 10 x 10 image tokens from 4 * (window row), 4 * (window column)
    s = attend(generate, s, torch.cat((s, cut(x, 10, 4).flatten(3, 4)), dim=3), shortcut=shortcut)
    s = lay_out(s.unflatten(3, (S, S))).flatten(1, 2)
    image = x.flatten(1, 2)
    query = s if centers is None else s + centers.flatten(1, 2)
    s = attend(refine, query, torch.cat((s, image), dim=1))
    windows = cut(s.unflatten(1, (2 * S, 2 * S)), S, S).flatten(3, 4)
    s = lay_out(attend(local, windows, windows).unflatten(3, (S, S))).flatten(1, 2)
    s = attend(semantic, s, s)
    return attend(recover, image, s).unflatten(1, x.shape[1:3])


def build(dense, shortcut, relative_pos, conv_pos, use_global):
    torch.manual_seed(0)
    cells = (2 * S, 2 * S)
    on_cells = cells if relative_pos and not dense else None
    steps = [
        Generation(C, shortcut=shortcut, conv_size=(S, S) if conv_pos else None),
        Refinement(C, cells if use_global else None),
        SelfAttention(),
        SelfAttention(across=True, grid=on_cells),
        Recovery(),
    ]
    relative = [None, None, (S, S) if relative_pos else None, on_cells, None]
    blocks = [TransformerBlock(C, HEADS, 16, layer_scale_init_value=1.0, relative_window=window) for window in relative]
    encoder = Encoder(blocks, steps).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder


def run(encoder, x, dense, mask):
    spec = WindowSpec((W, W), (S, S))
    where = (tuple(x.shape[1:3]), x.device)
    if not dense:
        layout = StretchedWindows(spec, *where)
    else:
        layout = PaddedWindows(spec, *where) if mask == 'exact' else PublishedWindows(spec, *where, hide=bool(mask))
    with torch.no_grad():
        return encoder(x, layout)[0].x


OPTIONS = [
    dict(shortcut=True, relative_pos=False, conv_pos=False),
    dict(shortcut=False, relative_pos=True, conv_pos=False),
    dict(shortcut=True, relative_pos=True, conv_pos=True),
]


@pytest.mark.parametrize('options', OPTIONS)
@pytest.mark.parametrize('mask', ['exact', 'published', None])
@pytest.mark.parametrize('grid', [(14, 14), (21, 35), (17, 13), (14, 19), (23, 28), (5, 6), (50, 76), (37, 11), (7, 7)])
def test_dense_unit(grid, mask, options):
    encoder = build(dense=True, use_global=False, **options)
    x = torch.randn(2, *grid, C)
    conv = encoder.steps[0].conv
    assert (conv is not None) == options['conv_pos']
    with torch.no_grad():
        expected = dense_unit(encoder.layers, x, mask, options['shortcut'], conv)
    assert torch.allclose(run(encoder, x, True, mask), expected, atol=2e-4)


@pytest.mark.parametrize('use_global', [True, False])
@pytest.mark.parametrize('options', OPTIONS)
def test_classification_unit(options, use_global):
    encoder = build(dense=False, use_global=use_global, **options)
    x = torch.randn(2, 14, 14, C)
    with torch.no_grad():
        steps = encoder.steps
        expected = fixed_unit(encoder.layers, x, options['shortcut'], steps[0].conv, steps[1].global_centers)
    assert torch.allclose(run(encoder, x, False, 'exact'), expected, atol=2e-4)
