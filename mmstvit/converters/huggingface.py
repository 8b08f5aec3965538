"""Layout of ViT, DeiT and DINOv2 checkpoints in the names of Hugging Face's transformers."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from .deit import split_positions
from .layout import Layout, Rules, join_projections

# Files have `encoder.layer`; since version 5 the modules of ViT and DeiT have `layers`.
_OLD = r'(?:encoder\.layer|layers)\.(\d+)\.'
_LAYER = r'backbone.encoder.layers.\1.'
_RULES: Rules = [
    (r'embeddings\.patch_embeddings\.projection\.(.*)', r'backbone.patch_embed.projection.\1'),
    (r'embeddings\.(cls_token|register_tokens)', r'backbone.\1'),
    (r'embeddings\.distillation_token', r'backbone.dist_token'),
    (r'embeddings\.position_embeddings', r'backbone.pos_embed'),
    (_OLD + r'attention\.(?:attention\.)?([qkv])(?:_proj|[a-z]+)\.(weight|bias)', _LAYER + r'attn.\2.\3'),
    (_OLD + r'attention\.(?:output\.dense|o_proj)\.(.*)', _LAYER + r'attn.proj.\2'),
    (_OLD + r'(?:layernorm_before|norm1)\.(.*)', _LAYER + r'norm1.\2'),
    (_OLD + r'(?:layernorm_after|norm2)\.(.*)', _LAYER + r'norm2.\2'),
    (_OLD + r'(?:intermediate\.dense|mlp\.fc1)\.(.*)', _LAYER + r'mlp.fc1.\2'),
    (_OLD + r'(?:output\.dense|mlp\.fc2)\.(.*)', _LAYER + r'mlp.fc2.\2'),
    (_OLD + r'layer_scale([12])\.lambda1', _LAYER + r'layer_scale_\2'),
    (_OLD + r'(.*)', _LAYER + r'\2'),
    (r'layernorm\.(.*)', r'backbone.norm.\1'),
    (r'(?:cls_)?classifier\.(weight|bias)', r'head.layers.head.\1'),
]


def _finish(state_dict: dict[str, Tensor], names: Iterable[str], grid: Sequence[int] | None) -> None:
    join_projections(state_dict, 'qkv')
    split_positions(state_dict, grid)


LAYOUTS = (
    Layout(
        "ViT, DeiT or DINOv2 in the names of Hugging Face's transformers",
        {f'embeddings.{name}' for name in ('cls_token', 'position_embeddings', 'patch_embeddings.projection.weight')},
        _RULES,
        _finish,
    ),
)
