import pytest
import torch
import torch.nn as nn

from mmstvit.layers.attention import Attention
from mmstvit.layers.block import Mlp, TransformerBlock


def formula(attention: Attention, query: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """Attention written out: softmax(q k^T / sqrt(d)) v, head by head."""
    dims, heads = attention.embed_dims, attention.num_heads
    weight, bias = attention.qkv.weight, attention.qkv.bias
    bias = torch.zeros(3 * dims) if bias is None else bias
    q = query @ weight[:dims].T + bias[:dims]
    k = context @ weight[dims : 2 * dims].T + bias[dims : 2 * dims]
    v = context @ weight[2 * dims :].T + bias[2 * dims :]
    outs = []
    for head in range(heads):
        part = slice(head * dims // heads, (head + 1) * dims // heads)
        logits = q[..., part] @ k[..., part].transpose(1, 2) * (dims // heads) ** -0.5
        outs.append(logits.softmax(-1) @ v[..., part])
    return torch.cat(outs, -1) @ attention.proj.weight.T + attention.proj.bias


@pytest.mark.parametrize('qkv_bias', [True, False])
def test_attention_is_the_formula_with_and_without_context(qkv_bias):
    attention = Attention(12, 3, qkv_bias=qkv_bias).double().eval()
    query, context = torch.randn(2, 5, 12, dtype=torch.double), torch.randn(2, 9, 12, dtype=torch.double)
    assert torch.allclose(attention(query), formula(attention, query, query))
    assert torch.allclose(attention(query, (context,)), formula(attention, query, context))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match='embed_dims=10 is not a multiple of num_heads=3'):
        Attention(10, 3)


def test_block_is_pre_norm_with_one_norm_for_query_and_context():
    block = TransformerBlock(8, 2, 16, layer_scale_init_value=0.3).eval()
    x, context = torch.randn(2, 4, 8), torch.randn(2, 7, 8)
    y = x + 0.3 * block.attn(block.norm1(x), (block.norm1(context),))
    y = y + 0.3 * block.mlp.fc2(nn.functional.gelu(block.mlp.fc1(block.norm2(y))))
    assert torch.allclose(block(x, (context,)), y, atol=1e-6)


def test_context_that_is_the_query_is_self_attention():
    block = TransformerBlock(8, 2, 16).eval()
    x = torch.randn(2, 4, 8)
    assert torch.allclose(block(x, (x,)), block(x), atol=1e-6)


@pytest.mark.parametrize(
    'options', [dict(drop_rate=0.5), dict(attn_drop_rate=0.5), dict(drop_path_rate=0.9)], ids=lambda o: next(iter(o))
)
def test_each_kind_of_dropout_acts_in_training_alone(options):
    torch.manual_seed(0)
    block = TransformerBlock(8, 2, 16, **options)
    x = torch.randn(6, 5, 8)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_stochastic_depth_skips_whole_samples():
    torch.manual_seed(0)
    block = TransformerBlock(8, 2, 16, drop_path_rate=0.7)
    x = torch.randn(64, 5, 8)
    unchanged = (block(x) == x).flatten(1).all(1)
    assert 0 < unchanged.sum() < 64


def test_the_mlp_of_many_tokens_is_computed_in_parts_on_a_cpu():
    mlp = Mlp(8, 1024)
    x, parts = torch.randn(2, 53, 47, 8), []
    mlp.fc1.register_forward_hook(lambda module, inputs, output: parts.append(output.numel()))
    whole = mlp(x)  # with gradients
    assert parts == [2 * 53 * 47 * 1024]
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), whole, rtol=1e-5, atol=1e-6)
        assert sum(parts[1:]) == parts[0] and max(parts[1:]) <= 2**20
        few = len(parts)
        mlp(x[:, :20])  # stays in the cache as it is
        assert len(parts) == few + 1
