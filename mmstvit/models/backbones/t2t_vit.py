"""T2T-ViT: a plain transformer behind the tokens-to-token module."""

from collections.abc import Sequence
from typing import Any

from ...registry import MODELS
from .stvit import STViT


def _arch(embed_dims: int, num_layers: int, num_heads: int, mlp_ratio: int) -> dict:
    return dict(
        embed_dims=embed_dims,
        num_layers=num_layers,
        num_heads=num_heads,
        feedforward_channels=mlp_ratio * embed_dims,
    )


_14, _19, _24 = _arch(384, 14, 6, 3), _arch(448, 19, 7, 3), _arch(512, 24, 8, 3)

FIXED = dict(embed=('tokenizer', 'position'), block=('qkv_bias',))


@MODELS.register_module()
class T2TViT(STViT):
    """T2T-ViT, "Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet", arXiv 2101.11986.

    :class:`STViT` with the tokenizer, the fixed positions and the options of that paper; semantic tokens are one option
    more. Checkpoints of its authors and of mmpretrain load as they are, at other image sizes too.

    Args:
        arch: ``'t-14'``, ``'t-19'``, ``'t-24'`` (tokens by transformer layers), ``'7'``, ``'10'``, ``'12'``, ``'14'``,
            ``'19'``, ``'24'`` and the paper's other designs ``'14-wide'``, ``'14-resnext'``, ``'14-se'``,
            ``'16-ghost'``, ``'19-dense'`` (by performer layers), or a dict with ``embed_dims``, ``num_layers``,
            ``num_heads`` and ``feedforward_channels``.
        img_size: the image size the position table is made for, in pixels: one number or ``(height, width)``.
        t2t_type: layers of the tokenizer, ``'transformer'`` or ``'performer'``; by default that of the architecture's
            name, and for a dict ``'transformer'``.
        token_dims: width of the tokens inside the tokenizer.
        design: of the layers, as of :class:`STViT`; by default that of the architecture's name.
        with_cls_token: whether a class token rides along.
        out_type: as of :class:`STViT`; by default the class token, or the mean where there is none.
        norm_cfg: the norm layers.
        **options: of :class:`STViT`; by default ``reduce=None``, T2T-ViT as published.

    Raises:
        ValueError: an option has an unknown value, does not fit the others, or would have no effect.
    """

    arch_zoo = {
        't-14': _14,
        't-19': _19,
        't-24': _24,
        '7': _arch(256, 7, 4, 2),
        '10': _arch(256, 10, 4, 2),
        '12': _arch(256, 12, 4, 2),
        '14': _14,
        '19': _19,
        '24': _24,
        '14-wide': _arch(768, 4, 12, 3),
        '14-resnext': _arch(384, 14, 32, 3),
        '14-se': _14,
        '16-ghost': _arch(384, 16, 6, 3),
        '19-dense': _arch(128, 19, 8, 2),
    }
    designs: dict[str, dict[str, Any]] = {
        '14-se': dict(type='se'),
        '16-ghost': dict(type='ghost'),
        '19-dense': dict(type='dense', growth=64, groups=(3, 6, 6, 4)),
    }

    def __init__(
        self,
        arch: str | dict = 't-14',
        img_size: int | Sequence[int] = 224,
        t2t_type: str | None = None,
        token_dims: int = 64,
        design: dict | None = None,
        with_cls_token: bool = True,
        out_type: str | None = None,
        norm_cfg: dict | None = None,
        **options: Any,
    ) -> None:
        for group, names in FIXED.items():
            given = [name for name in names if name in options or name in (options.get(group) or {})]
            if given:
                raise ValueError(f'{given[0]} of T2TViT is fixed: leave it out, or take STViT with a T2TModule')
        twice = [name for name in ('design', 'norm_cfg') if name in (options.get('block') or {})]
        if twice:
            raise ValueError(f'{twice[0]} of T2TViT is given alone, not in block')
        if t2t_type is None:
            t2t_type = 'performer' if isinstance(arch, str) and not arch.startswith('t-') else 'transformer'
        if design is None and isinstance(arch, str):
            design = self.designs.get(arch)
        norm_cfg = norm_cfg or dict(type='LN', eps=1e-5)
        if options.get('semantic_grid') is None:
            options.setdefault('reduce', None)
        super().__init__(
            arch,
            img_size,
            tokenizer=dict(type='T2TModule', token_dims=token_dims, t2t_type=t2t_type, norm_cfg=norm_cfg),
            position='sinusoid',
            qkv_bias=False,
            design=design,
            with_cls_token=with_cls_token,
            out_type=out_type or ('cls_token' if with_cls_token else 'avg_featmap'),
            norm_cfg=norm_cfg,
            **options,
        )
