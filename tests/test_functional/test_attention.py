"""Attention in which keys weigh differently."""

import torch

from mmstvit.functional.attention import attend


def operands(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=generator).to(dtype) for n in (5, 7, 7))
    size = torch.randint(1, 6, (2, 7), generator=generator)
    return q, k, v, size


def test_a_key_of_three_patches_weighs_as_three_keys():
    q, k, v, size = operands()
    found = attend(q, k, v, key_bias=size.double().log())
    for i in range(2):
        many_k, many_v = (x[i : i + 1].repeat_interleave(size[i], dim=2) for x in (k, v))
        torch.testing.assert_close(found[i : i + 1], attend(q[i : i + 1], many_k, many_v), rtol=1e-9, atol=1e-9)


def test_a_key_of_no_patch_is_not_seen():
    q, k, v, size = operands(torch.float32)
    size[:, 4:] = 0
    q.requires_grad_()
    found = attend(q, k, v, key_bias=size.float().log())
    expected = attend(q, k[:, :, :4], v[:, :, :4], key_bias=size[:, :4].float().log())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(found.square().sum(), q)
    assert gradient.isfinite().all()


def test_a_mask_of_pairs_goes_with_it():
    q, k, v, size = operands(torch.float32)
    bias, key_bias = torch.randn(1, 1, 5, 7), size.float().log()
    weights = (q @ k.transpose(-2, -1) / 8**0.5 + bias + key_bias[:, None, None]).softmax(dim=-1)
    torch.testing.assert_close(attend(q, k, v, bias, key_bias), weights @ v)
