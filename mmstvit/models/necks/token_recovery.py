"""Neck that recovers the image map from semantic tokens."""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor

from ...layers.block import TransformerBlock
from ...layers.layout import WholeImage
from ...layers.steps import Recovery
from ...layers.tokens import Tokens
from ...registry import MODELS


@MODELS.register_module()
class TokenRecovery(BaseModule):
    """Recover the full-resolution map for dense heads from the semantic tokens of a backbone.

    The recovery layer of STViT-R (arXiv 2303.08685, section 3.4) behind a backbone without one: the tokens of an
    earlier image map query the semantic tokens of the last one. For a plain :class:`STViT` of 12 layers::

        backbone=dict(type='mmstvit.STViT', out_type='featmap', out_indices=(3, 11)),
        neck=dict(type='mmstvit.TokenRecovery', embed_dims=384, num_heads=6),

    Args:
        embed_dims: channels C of both maps.
        num_heads: attention heads; must divide ``embed_dims``.
        feedforward_channels: hidden width of the MLP, by default four times ``embed_dims``.
        qkv_bias: whether the projections of query, key and value have a bias.
        drop_rate: dropout after the output projection and in the MLP.
        attn_drop_rate: dropout of the attention weights.
        drop_path_rate: probability that an image skips a branch of the layer (stochastic depth), in training.
        layer_scale_init_value: initial value of LayerScale; 0 means no LayerScale.
        norm_cfg: the norm layers.
        final_norm: whether the recovered map is normed.
        init_cfg: initialisation, by default truncated normal weights in linear layers.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int | None = None,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 0.0,
        norm_cfg: dict | None = None,
        final_norm: bool = True,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='TruncNormal', layer='Linear', std=0.02))
        norm_cfg = norm_cfg or dict(type='LN', eps=1e-6)
        self.embed_dims = embed_dims
        self.layer = TransformerBlock(
            embed_dims,
            num_heads,
            4 * embed_dims if feedforward_channels is None else feedforward_channels,
            qkv_bias=qkv_bias,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=layer_scale_init_value,
            norm_cfg=norm_cfg,
        )
        self.step = Recovery()
        self.norm = build_norm_layer(norm_cfg, embed_dims)[1] if final_norm else None

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        """Recover the image map.

        Args:
            inputs: an image map ``(B, C, *grid)`` and a map of semantic tokens ``(B, C, *semantic_grid)``, as a
                backbone returns them for two of its layers.

        Returns:
            One map ``(B, C, *grid)``.

        Raises:
            ValueError: there are not just two maps of ``embed_dims`` channels.
        """
        if len(inputs) != 2 or any(x.dim() < 3 or x.shape[1] != self.embed_dims for x in inputs):
            raise ValueError(
                f'TokenRecovery takes an image map and a map of semantic tokens, (B, {self.embed_dims}, ...) each, got '
                f"{[tuple(x.shape) for x in inputs]}: give the backbone out_type='featmap' and two out_indices"
            )
        image, semantic = (x.flatten(2).transpose(1, 2) for x in inputs)  # (B, C, *grid) -> (B, N, C)
        grid, cells = (tuple(x.shape[2:]) for x in inputs)
        layout = WholeImage(grid, image.device, cells=cells)
        image = self.step(self.layer, Tokens(semantic, layout, image)).x
        if self.norm is not None:
            image = self.norm(image)
        return (image.transpose(1, 2).unflatten(2, grid).contiguous(),)
