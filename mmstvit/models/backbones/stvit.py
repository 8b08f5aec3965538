"""STViT on the plain vision transformer (DeiT layout)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from mmcv.cnn import build_norm_layer
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor

from ...converters import register_published_weights
from ...functional.position import resize_table, sinusoid_table
from ...layers.designs import build_layers
from ...layers.embed import ConvStem, PatchEmbed
from ...layers.encoder import Encoder
from ...layers.layout import WholeImage
from ...layers.options import axes_of, check_idle, rank_of, take_group
from ...layers.steps import Network, build_steps
from ...layers.t2t import T2TModule
from ...layers.tokens import Tokens
from ...registry import MODELS
from .base import Backbone, outputs

OUT_TYPES = ('avg_featmap', 'cls_token', 'featmap', 'raw')
POSITIONS = ('learned', 'sinusoid')
STGM = dict(type='STGM')
# The options of two groups, and their defaults; and the names that options of the STGM have outside theirs.
EMBED = dict(patch_size=16, tokenizer=None, position='learned', in_channels=3, num_register_tokens=0)
BLOCK = dict(
    qkv_bias=True,
    design=None,
    drop_rate=0.0,
    attn_drop_rate=0.0,
    drop_path_rate=0.0,
    layer_scale_init_value=0.0,
    qk_norm=False,
    norm_cfg=None,
    with_cp=False,
)
SHORT_FORM = dict(
    semantic_grid='grid', stgm_layer='layer', pooling='pooling', use_global='use_global', recover='recover'
)
TOKENIZERS = {'PatchEmbed': PatchEmbed, 'ConvStem': ConvStem, 'T2TModule': T2TModule}


def build_tokenizer(
    tokenizer: dict | None, in_channels: int, embed_dims: int, patch_size: int | Sequence[int]
) -> nn.Module:
    """Build the stem; types are looked up in this package, so that a bare name works in any toolbox."""
    if tokenizer is None:
        return PatchEmbed(in_channels, embed_dims, axes_of('patch_size', patch_size))
    options = dict(tokenizer)
    kind = options.pop('type', None)
    if kind not in TOKENIZERS:
        raise ValueError(f'tokenizer type {kind!r} is unknown, choose from {tuple(TOKENIZERS)}')
    check_idle(f'tokenizer=dict(type={kind!r})', patch_size=(patch_size, 16))
    if kind == 'ConvStem':
        options.setdefault('num_convs', 4)  # stride 16
    return TOKENIZERS[kind](in_channels, embed_dims, **options)


def reduce_option(reduce: dict | None, short: dict, owner: str) -> dict | None:
    """Return the option ``reduce``, which may have been given in its short form.

    Args:
        reduce: as given; the very object ``STGM`` where it was not.
        short: options of ``SHORT_FORM``.
        owner: name of the class.

    Raises:
        ValueError: it was given both ways, or an option has no effect.
        TypeError: there is no such option.
    """
    unknown = [name for name in short if name not in SHORT_FORM]
    if unknown:
        raise TypeError(f'{owner}.__init__() got an unexpected keyword argument {unknown[0]!r}')
    if not short:
        return reduce
    if reduce is not STGM and reduce is not None:
        raise ValueError(
            f'{next(iter(short))} is given, the short form of reduce, and reduce={reduce} too: leave one out; where a '
            'config inherits it, write the backbone anew with _delete_=True'
        )
    if reduce is None or short.get('semantic_grid', ()) is None:
        defaults = dict(stgm_layer=4, pooling='max', use_global=True, recover=False)
        if short.get('semantic_grid') is not None:
            raise ValueError(
                f'reduce=None and semantic_grid={short["semantic_grid"]} contradict each other: for the plain '
                'transformer give semantic_grid=None alone'
            )
        because = 'semantic_grid=None' if 'semantic_grid' in short else 'reduce=None'
        check_idle(because, **{name: (short.get(name, default), default) for name, default in defaults.items()})
        return None
    return dict(type='STGM', **{SHORT_FORM[name]: value for name, value in short.items()})


@MODELS.register_module()
class STViT(Backbone):
    """Vision transformer that reduces its tokens, by default to a few semantic tokens after the first layers.

    "Making Vision Transformers Efficient from A Token Sparsification View", arXiv 2303.08685. After ``stgm_layer``
    ordinary layers, two layers (the semantic token generation module) gather the image tokens into a small grid of
    cluster centres, and the remaining layers run on those alone. With ``reduce=None`` it is the plain transformer of
    DeiT, the baseline; other methods of reducing tokens take the place of the module.

    Takes images of any size and aspect ratio: borders are padded to whole patches, and the position table is
    interpolated to the image's grid. DeiT checkpoints of its authors and of mmpretrain load as they are.

    With a patch of three axes it takes clips: tokens are tubelets, which attend to each other in space and time, and
    the semantic tokens are a grid in space and time too. Checkpoints of images load into it.

    Options of the groups ``embed``, ``block`` and, for the STGM, ``reduce`` may be given one by one too, without the
    group; those of the STGM under the names ``semantic_grid`` (``None`` for no reduction), ``stgm_layer``, ``pooling``,
    ``use_global`` and ``recover``.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` (the widths of DeiT), or a dict with ``embed_dims``, ``num_layers``,
            ``num_heads`` and ``feedforward_channels``.
        img_size: the size the position table is made for, in pixels: one number or ``(height, width)``, for clips
            ``(frames, height, width)``.
        reduce: how the number of tokens is reduced, a dict with ``type`` and options of its own, or ``None`` for the
            plain transformer. ``'STGM'`` has the options of :func:`~mmstvit.layers.steps.stgm.stgm`: ``grid``,
            ``layer``, ``pooling``, ``use_global``, and ``recover``, by which the map has the full resolution again.
            Others, such as ``'ToMe'``, say how much by one of ``r``, tokens removed in a layer; ``keep_rate``, share of
            tokens kept; or ``budget``, share of the plain transformer's multiply-adds: :mod:`mmstvit.layers.steps`.
        embed: what makes tokens of an image: ``patch_size`` in pixels, one number or ``(height, width)``, for clips
            ``(frames, height, width)``, of the default tokenizer; ``tokenizer``, a dict with ``type``: ``'PatchEmbed'``
            (the default), ``'ConvStem'`` (four convolutions) or ``'T2TModule'`` (T2T-ViT's), each of stride 16, and
            options of its own, such as ``num_convs`` and ``depth`` of :class:`.ConvStem`; ``position``, ``'learned'``
            or ``'sinusoid'``, the latter fixed; ``in_channels`` of the image; ``num_register_tokens``, learned tokens
            that ride along after the class token (DINOv2's registers).
        block: of the layers: ``qkv_bias``, whether the projections of query, key and value have a bias; ``design``,
            ``None`` for ordinary layers, or those of convolutional networks that T2T-ViT tries, see
            :func:`.build_layers`, of which ``'dense'`` takes no reduction; ``drop_rate``, dropout after the position
            table, the output projections and in the MLPs; ``attn_drop_rate``, dropout of the attention weights;
            ``drop_path_rate``, stochastic depth of the last layer, growing linearly from 0 at the first;
            ``layer_scale_init_value``, initial value of LayerScale, 0 for none; ``qk_norm``, whether queries and keys
            are normed in each head; ``norm_cfg``, the norm layers; ``with_cp``, recompute activations in the backward
            pass to save memory.
        with_cls_token: whether a class token rides along.
        out_type: ``'avg_featmap'``: mean over patches (B, C), for mmaction2's TimeSformerHead too; ``'cls_token'``: the
            class token (B, C); ``'featmap'``: the grid of tokens (B, C, *grid), of merged tokens that of the image, for
            mmaction2's I3DHead too; ``'raw'``: all tokens, the class token first, then registers (B, L, C).
        out_indices: the layers whose outputs are returned, negative numbers count from the last.
        final_norm: whether the last layer's output is normed.
        frozen_stages: -1: nothing is frozen; 0: the stem and the position table; n: the first n layers too; with all
            layers the final norm too.
        init_cfg: initialisation, by default truncated normal weights in linear layers.
        **options: those of the groups, one by one.

    Attributes:
        network: the sizes of the transformer, which a reduction is planned for.
        out_channels: channels of each output.

    Raises:
        ValueError: an option has an unknown value, does not fit the others, or would have no effect.
    """

    flat_options = (*SHORT_FORM, *EMBED, *BLOCK)
    arch_zoo = {
        'tiny': dict(embed_dims=192, num_layers=12, num_heads=3, feedforward_channels=768),
        'small': dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536),
        'base': dict(embed_dims=768, num_layers=12, num_heads=12, feedforward_channels=3072),
    }

    def __init__(
        self,
        arch: str | dict = 'small',
        img_size: int | Sequence[int] = 224,
        reduce: dict | None = STGM,
        embed: dict | None = None,
        block: dict | None = None,
        with_cls_token: bool = False,
        out_type: str = 'avg_featmap',
        out_indices: int | Sequence[int] = -1,
        final_norm: bool = True,
        frozen_stages: int = -1,
        init_cfg: dict | list | None = None,
        **options: Any,
    ) -> None:
        super().__init__(init_cfg or dict(type='TruncNormal', layer='Linear', std=0.02))
        arch = self.arch_settings(arch)
        embed = take_group('embed', embed, EMBED, options)
        block = take_group('block', block, BLOCK, options)
        reduce = reduce_option(reduce, options, type(self).__name__)
        norm_cfg = block['norm_cfg'] = block['norm_cfg'] or dict(type='LN', eps=1e-6)
        self.embed_dims = arch['embed_dims']
        self.num_layers = arch['num_layers']
        self.out_type = out_type
        self.num_prefix_tokens = int(with_cls_token) + embed['num_register_tokens']
        self.out_indices = self.chosen(out_indices, self.num_layers, 'layers')
        if out_type not in OUT_TYPES:
            raise ValueError(f'out_type={out_type!r} is unknown, choose from {OUT_TYPES}')
        if out_type == 'cls_token' and not with_cls_token:
            raise ValueError("out_type='cls_token' needs with_cls_token=True")

        tokenizer, patch_size = embed['tokenizer'], embed['patch_size']
        self.patch_embed = build_tokenizer(tokenizer, embed['in_channels'], self.embed_dims, patch_size)
        self.rank = 2 if tokenizer else rank_of('patch_size', patch_size)
        grid = self.patch_embed.grid_of(axes_of('img_size', img_size, self.rank))
        self._add_tokens(with_cls_token, embed['num_register_tokens'])
        self._add_positions(embed['position'], grid)
        self.drop_after_pos = nn.Dropout(block['drop_rate'])

        rates = np.linspace(0, block.pop('drop_path_rate'), self.num_layers).tolist()
        design = block.pop('design')
        layers, widths = build_layers(design, arch, rates, **block)
        self.out_channels = tuple(widths[i] for i in self.out_indices)
        if reduce is not None and set(widths) != {self.embed_dims}:
            raise ValueError(
                f'reduce={reduce} does not work with design={design}: it needs layers of one width, give reduce=None '
                '(or semantic_grid=None)'
            )
        ratio = arch['feedforward_channels'] / self.embed_dims
        self.network = Network(self.num_layers, self.embed_dims, grid, self.num_prefix_tokens, ratio, with_cls_token)
        self.encoder = Encoder(layers, build_steps(reduce, self.network))
        self.norm = build_norm_layer(norm_cfg, widths[-1])[1] if final_norm else None

        centers = [name for name, _ in self.named_parameters() if name.endswith('global_centers')]
        register_published_weights(self, tables=('pos_embed', *centers))
        self._freeze(frozen_stages, self.num_layers)

    def _add_tokens(self, with_cls_token: bool, num_register_tokens: int) -> None:
        """Add the class token and registers, which include their own positions."""
        if not isinstance(num_register_tokens, int) or num_register_tokens < 0:
            raise ValueError(f'num_register_tokens={num_register_tokens!r} must be an integer of at least 0')
        self.cls_token = self._learned(1) if with_cls_token else None
        self.register_tokens = self._learned(num_register_tokens) if num_register_tokens else None

    def _learned(self, *grid: int) -> nn.Parameter:
        return nn.Parameter(trunc_normal_(torch.zeros(1, *grid, self.embed_dims), std=0.02))

    def _add_positions(self, position: str, grid: tuple[int, ...]) -> None:
        """Add the position embeddings of patches; fixed ones are added to the class token too."""
        if position == 'learned':
            self.pos_embed = self._learned(*grid)
        elif position == 'sinusoid':
            prefix = int(self.cls_token is not None)
            table = sinusoid_table(math.prod(grid) + prefix, self.embed_dims)
            extra, table = table.tensor_split([prefix])
            self.register_buffer('pos_embed', table.unflatten(0, grid).unsqueeze(0))
            if self.cls_token is not None:
                self.cls_token.data += extra
        else:
            raise ValueError(f'position={position!r} is unknown, choose from {POSITIONS}')

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        modules = [self.patch_embed, self.drop_after_pos]
        modules += [*self.encoder.layers[: self.frozen_stages], *self.encoder.steps[: self.frozen_stages]]
        if self.frozen_stages == self.num_layers and self.norm is not None:
            modules.append(self.norm)
        return modules

    def _frozen_parameters(self) -> list[nn.Parameter]:
        parameters = super()._frozen_parameters()
        if self.frozen_stages >= 0:
            own = (self.pos_embed, self.cls_token, self.register_tokens)
            parameters += [p for p in own if isinstance(p, nn.Parameter)]
        return parameters

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Extract features.

        Args:
            x: images (B, in_channels, height, width) or clips (B, in_channels, frames, height, width).

        Returns:
            One tensor for each of ``out_indices``, of the shape that ``out_type`` says; a clip's single one is not in a
            tuple, since mmaction2's heads take it so.
        """
        x = self.patch_embed(x)
        grid = tuple(x.shape[1:-1])
        x = (x + resize_table(self.pos_embed, grid)).flatten(1, -2)  # (B, *grid, C) -> (B, N, C)
        prefix = [token for token in (self.cls_token, self.register_tokens) if token is not None]
        if prefix:
            x = torch.cat((*(token.expand(x.shape[0], -1, -1) for token in prefix), x), dim=1)
        x = self.drop_after_pos(x)
        layout = WholeImage(grid, x.device, self.num_prefix_tokens)
        _, outs = self.encoder(x, layout, self.out_indices)
        if self.norm is not None and self.num_layers - 1 in self.out_indices:
            outs[-1] = outs[-1]._replace(x=self.norm(outs[-1].x))
        return outputs([self._format(tokens) for tokens in outs], self.rank)

    def _format(self, tokens: Tokens) -> Tensor:
        x, layout = tokens.x, tokens.layout
        if self.out_type == 'raw':
            return x
        if self.out_type == 'cls_token':
            return x[:, 0]
        if self.out_type == 'avg_featmap':
            x = x[:, self.num_prefix_tokens :]
            if tokens.size is None:
                return x.mean(dim=1)
            size = tokens.size[:, self.num_prefix_tokens :]
            return (x * size).sum(dim=1) / size.sum(dim=1)
        if tokens.image is not None:
            x = layout.to_grid(x)
        else:
            x = layout.image_to_grid(tokens.unmerge())
        return x.movedim(-1, 1).contiguous()  # (B, *grid, C) -> (B, C, *grid)

    def _depth_of(self, name: list[str]) -> int | None:
        if name[0] in ('cls_token', 'register_tokens', 'pos_embed', 'patch_embed'):
            return 0
        return int(name[2]) + 1 if name[0] == 'encoder' else None  # encoder.layers.N or encoder.steps.N
