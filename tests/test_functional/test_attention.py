"""Attention in which keys weigh differently: the ways give the same numbers."""

import pytest
import torch

from mmstvit.functional.attention import WAYS, attend, proportional_by, way_for


def operands(width=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, width, generator=generator).to(dtype) for n in (5, 7, 7))
    size = torch.randint(1, 6, (2, 7), generator=generator)
    return q, k, v, size


@pytest.mark.parametrize('width', [8, 5])
@pytest.mark.parametrize('way', WAYS)
def test_a_key_of_three_patches_weighs_as_three_keys(way, width):
    q, k, v, size = operands(width)
    found = attend(q, k, v, key_bias=size.double().log(), way=way)
    for i in range(2):
        many_k, many_v = (x[i : i + 1].repeat_interleave(size[i], dim=2) for x in (k, v))
        torch.testing.assert_close(found[i : i + 1], attend(q[i : i + 1], many_k, many_v), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('way', WAYS)
def test_a_key_of_no_patch_is_not_seen(way):
    q, k, v, size = operands(dtype=torch.float32)
    size[:, 4:] = 0
    q.requires_grad_()
    found = attend(q, k, v, key_bias=size.float().log(), way=way)
    expected = attend(q, k[:, :, :4], v[:, :, :4], key_bias=size[:, :4].float().log(), way='mask')
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(found.square().sum(), q)
    assert gradient.isfinite().all()


@pytest.mark.parametrize('way', WAYS)
def test_a_mask_of_pairs_goes_with_all(way):
    q, k, v, size = operands(dtype=torch.float32)
    bias, key_bias = torch.randn(1, 1, 5, 7), size.float().log()
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, bias + key_bias[:, None, None])
    torch.testing.assert_close(attend(q, k, v, bias, key_bias, way=way), expected)


def test_one_way_for_all_within_a_context():
    q = operands(dtype=torch.float32)[0]
    assert way_for(q) == way_for(q.bfloat16()) == 'mask'
    with proportional_by('column'):
        assert way_for(q) == 'column'
    assert way_for(q) == 'mask'
    with pytest.raises(ValueError, match='choose from'), proportional_by('rows'):
        pass
