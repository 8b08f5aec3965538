"""Rotary positions as products of complex numbers, and what becomes of them where tokens are merged."""

import pytest
import torch

from mmstvit.functional.reduction import reduction_to, selection_of
from mmstvit.functional.rotary import Rotary
from mmstvit.layers.attention import Attention, AttentionLayout

ANGLES = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))  # (1, N, D / 2)


def rotary(interleaved):
    twice = ANGLES.repeat_interleave(2, dim=-1) if interleaved else ANGLES.tile(2)
    return Rotary(twice.sin(), twice.cos(), interleaved)


def pairs(x, interleaved):
    """Channels that are rotated together, as complex numbers (..., D / 2)."""
    x = x.unflatten(-1, (-1, 2)) if interleaved else x.unflatten(-1, (2, -1)).transpose(-1, -2)
    return torch.view_as_complex(x.contiguous())


both = pytest.mark.parametrize('interleaved', [True, False])


@both
def test_a_rotation_is_a_product_with_a_complex_number(interleaved):
    x = torch.randn(2, 3, 6, 8)
    expected = pairs(x, interleaved) * torch.polar(torch.ones(()), ANGLES)[:, None]
    assert torch.allclose(pairs(rotary(interleaved).rotate(x), interleaved), expected, atol=1e-6)
    assert rotary(interleaved).rotate(x.bfloat16()).dtype == torch.bfloat16


@both
def test_tokens_at_the_front_stay_as_they_are(interleaved):
    x = torch.randn(2, 3, 8, 8)
    rotated = rotary(interleaved).with_prefix(2).rotate(x)
    assert torch.equal(rotated[:, :, :2], x[:, :, :2])
    assert torch.equal(rotated[:, :, 2:], rotary(interleaved).rotate(x[:, :, 2:]))


@both
def test_a_merged_key_is_the_mean_of_what_it_was_at_its_places(interleaved):
    """Of patches 0, 1, 2 and 3, which were two tokens of one and three patches, 4 and 5 stay."""
    first = reduction_to(torch.tensor([[0, 1, 1, 1, 2, 3]] * 2), 4)
    then = reduction_to(torch.tensor([[0, 0, 1, 2]] * 2), 3)
    sizes = first.merge(torch.ones(2, 6, 1))
    key = torch.randn(2, 3, 1, 8)
    merged = rotary(interleaved).reduced(first, None, 2).reduced(then, sizes, 2).rotate(key.expand(-1, -1, 3, -1))
    alone = rotary(interleaved).rotate(key.expand(-1, -1, 6, -1))
    assert torch.allclose(merged[:, :, 0], alone[:, :, :4].mean(dim=2), atol=1e-6)
    assert torch.allclose(merged[:, :, 1:], alone[:, :, 4:], atol=1e-6)


def test_kept_tokens_keep_their_places():
    kept = torch.tensor([[1, 3, 3], [0, 4, 5]])
    valid = torch.tensor([[1.0, 1, 0], [1, 1, 1]])
    reduced = rotary(True).reduced(selection_of(kept, 6, valid), None, 2)
    assert torch.allclose(reduced.cos[1], rotary(True).cos[0, [0, 4, 5]]) and reduced.cos.isfinite().all()
    assert torch.allclose(reduced.sin[0, :2], rotary(True).sin[0, [1, 3]]) and not reduced.sin[0, 2].any()


@both
def test_attention_of_our_own_rotates_queries_and_keys(interleaved):
    torch.manual_seed(0)
    attention, x = Attention(24, 3), torch.randn(2, 6, 24)
    q, k, v = attention.qkv(x).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
    q, k = rotary(interleaved).rotate(q), rotary(interleaved).rotate(k)
    weights = (q @ k.transpose(-2, -1) * 8**-0.5).softmax(dim=-1)
    expected = attention.proj((weights @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(attention(x, None, AttentionLayout(rotary=rotary(interleaved))), expected, atol=1e-6)
    assert not torch.allclose(attention(x), expected, atol=1e-3)
