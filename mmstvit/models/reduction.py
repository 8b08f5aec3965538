"""Token reduction for vision transformers that exist already."""

import ast
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn as nn
from mmengine.registry import MODELS as MMENGINE_MODELS

from ..layers.adapters import OwnTransformer, Transformer, find_transformer, transformer_of
from ..layers.steps import METHODS, TRAINED, SelfAttention, Step, build_steps
from ..layers.steps.schedule import AMOUNTS, multiply_add_share, tokens_per_block
from ..registry import MODELS


def reduction_of(model: nn.Module) -> 'TokenReduction | None':
    """Return the reduction of a model, or of the part of it that is reduced; ``None`` where none is."""
    part = _reduced_part(model)
    return None if part is None else part.reduction  # type: ignore[return-value]


def _reduced_part(model: nn.Module) -> nn.Module | None:
    parts = (module for module in model.modules() if isinstance(getattr(module, 'reduction', None), TokenReduction))
    return next(parts, None)


def methods_for(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the methods that :func:`reduce_` can apply to a model, none where it cannot be reduced."""
    try:
        transformer = transformer_of(model)
    except ValueError:
        return ()
    names = []
    for name in METHODS:
        if name in TRAINED:
            continue
        try:
            transformer.check(build_steps(dict(type=name, keep_rate=0.5), transformer.network))
        except ValueError:  # e.g. it needs a class token
            continue
        names.append(name)
    return tuple(names)


def reduce_(model: nn.Module, method: str, **options: Any) -> nn.Module:
    """Make a vision transformer faster, in place, by reducing its tokens from layer to layer.

    Nothing is trained and no parameter is added: the state dict keeps its keys, so weights load before or after. With
    options that reduce nothing, and after :func:`restore_`, outputs are equal to the last bit.

    Args:
        model: with a ``VisionTransformer`` of timm, mmpretrain or mmseg, an ``Eva`` of timm (EVA-02, DINOv3), a ViT,
            DeiT, DINOv2, DINOv3, CLIP or SigLIP vision model of Hugging Face's transformers, or an :class:`.STViT` with
            ``reduce=None`` in it.
        method: a name of ``METHODS`` in :mod:`mmstvit.layers.steps`, in any case, e.g. ``'tome'``.
        **options: of the method, e.g. ``r=8``. They can be changed later: ``model.reduction.r = 4``.

    Returns:
        The model, with its options as ``model.reduction``.

    Raises:
        ValueError: an unknown method or option, a model that is reduced already, or one that cannot be.
    """
    if reduction_of(model) is not None:
        raise ValueError('the model is reduced already: change its reduction, or call restore_(model) first')
    names = _names()
    name = names.get(str(method).lower())
    if name in TRAINED:
        raise ValueError(
            f'{name} has weights of its own, which need training: give it in a config, '
            f'backbone=dict(type="mmstvit.Reduced", backbone=..., reduce=dict(type={name!r}, ...))'
        )
    if name is None:
        raise ValueError(
            f'method={method!r} is unknown, choose from {tuple(low for low in names if names[low] not in TRAINED)}'
        )
    return _reduce(model, name, options)


def _names() -> dict[str, str]:
    """Return the names of the methods for transformers that exist, by their lower case."""
    return {name.lower(): name for name in METHODS if name != 'STGM'}


def _reduce(model: nn.Module, method: str, options: dict[str, Any]) -> nn.Module:
    """Reduce the tokens of a model; weights of the method become a part of it."""
    part, transformer = find_transformer(model)
    reduction = TokenReduction(transformer, method, options)
    reduction.apply()
    for module in (model, part):  # the latter may be saved or reduced without what is around it
        module.reduction = reduction  # type: ignore[assignment]  # plain attribute of a module
    known = {id(module) for module in model.modules()}  # the steps of an STViT are
    weights = {str(i): nn.ModuleDict(parts) for i, parts in reduction.weights.items()}
    if not all(id(part) in known for parts in weights.values() for part in parts.values()):
        model.reduction_steps = nn.ModuleDict(weights)
    return model


def restore_(model: nn.Module) -> nn.Module:
    """Undo :func:`reduce_`, in place, of a model or of the part of it that is reduced.

    Raises:
        ValueError: the model is not reduced.
    """
    part = _reduced_part(model)
    if part is None:
        raise ValueError('the model is not reduced')
    reduction = part.reduction
    reduction.transformer.restore()
    for module in model.modules():
        if vars(module).get('reduction') is reduction:
            del module.reduction
            module._modules.pop('reduction_steps', None)
    return model


def reduce_by_text(model: nn.Module, text: str) -> nn.Module:
    """Reduce the tokens of a model as a command line says, see :func:`reduce_`.

    Args:
        model: as of :func:`reduce_`.
        text: e.g. ``'tome:r=13'``, ``'evit:keep_rate=0.7,blocks=(3,6,9)'``.

    Raises:
        ValueError: it is none, or as of :func:`reduce_`.
    """
    method, _, options = text.partition(':')
    try:
        call = ast.parse(f'f({options})', mode='eval').body
        if not isinstance(call, ast.Call) or call.args or not method.isidentifier():
            raise ValueError
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f'{text!r} is no reduction: write METHOD:OPTION=VALUE,..., e.g. tome:r=13') from error
    return reduce_(model, method, **arguments)


@MODELS.register_module()
def Reduced(backbone: dict, reduce: dict) -> nn.Module:
    """Build a backbone of any toolbox and reduce its tokens: ``type='mmstvit.Reduced'`` in a config.

    It is a function named as the type that it stands for: the result is that backbone, with its own parameter names, so
    that its checkpoints load. Maps, of one block or of several ``out_indices``, have a place for each patch.

    Args:
        backbone: its config, e.g. ``dict(type='VisionTransformer', ...)`` of the default scope mmpretrain, or in mmdet
            ``dict(type='mmpretrain.VisionTransformer', out_type='featmap', ...)``.
        reduce: the method and its options, e.g. ``dict(type='ToMe', r=8)``. Methods with weights of their own can be
            trained and tested so: they are under ``reduction_steps``, of an :class:`.STViT` under ``encoder.steps``.

    Raises:
        ValueError: see :func:`mmstvit.reduce_`.
    """
    options = dict(reduce)
    method, model = options.pop('type', ''), MMENGINE_MODELS.build(backbone)
    if (name := _names().get(method.lower())) in TRAINED:
        return _reduce(model, name, options)
    return reduce_(model, method, **options)


class TokenReduction:
    """The options of a reduced model; setting one takes effect at the next forward pass.

    Args:
        transformer: whose blocks are run by steps.
        method: a name of ``METHODS``.
        options: of the method.

    Attributes:
        steps: one for each block.
        weights: of the method, parts of a step by their names, by the number of the block.
    """

    def __init__(self, transformer: Transformer | OwnTransformer, method: str, options: dict[str, Any]) -> None:
        vars(self).update(transformer=transformer, method=method, options=dict(options), steps=[], weights={})

    def apply(self, **options: Any) -> None:
        """Change options, one of ``r``, ``keep_rate`` and ``budget`` taking the place of another.

        Raises:
            ValueError: they do not fit; the model is as it was.
        """
        amounts = AMOUNTS if any(name in AMOUNTS for name in options) else ()
        settings = {name: value for name, value in self.options.items() if name not in amounts} | options
        settings = {n: tuple(v) if isinstance(v, list) else v for n, v in settings.items()}  # lists may change later
        transformer = self.transformer
        # Weights that are there already take the place of the new ones, which need no numbers then.
        with torch.device('meta') if self.weights else nullcontext():
            steps = build_steps(dict(type=self.method, **settings), transformer.network)
        transformer.check(steps)
        weights = self._take_over(steps)
        vars(self).update(options=settings, steps=steps, weights=weights)
        transformer.restore()
        if not all(type(step) is SelfAttention for step in steps):  # else the blocks run as they are
            transformer.run(steps)

    def _take_over(self, steps: Sequence[Step]) -> dict[int, dict[str, nn.Module]]:
        """Give new steps the weights of those before them, and return them."""
        weights = {i: parts for i, step in enumerate(steps) if (parts := dict(step.named_children()))}
        if self.weights and str(self.weights) != str(weights):  # by sizes
            raise ValueError(
                f'{self.method} has weights for the blocks {[*self.weights]}, which do not fit these options: build '
                'the network with them'
            )
        for i, parts in self.weights.items():
            for name, part in parts.items():
                setattr(steps[i], name, part)
        return self.weights or weights

    def __getattr__(self, name: str) -> Any:
        options = vars(self).get('options', {})  # absent while an instance is being copied
        if name not in options:
            raise AttributeError(f'the reduction has no option {name!r}, it has {tuple(options)}')
        return options[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self.apply(**{name: value})

    @property
    def tokens(self) -> list[int]:
        """Tokens that leave each block at the image size that the model is made for, without prefix tokens."""
        return tokens_per_block(self.transformer.network, self.steps)

    @property
    def share(self) -> float:
        """The multiply-adds of the blocks, in those without reduction."""
        return multiply_add_share(self.transformer.network, self.steps)

    @property
    def summary(self) -> str:
        """What is reduced, in a line."""
        options = ', '.join(f'{name}={value!r}' for name, value in self.options.items())
        before, after = math.prod(self.transformer.network.grid), self.tokens[-1]
        return f'{self.method}, {options}: {before} -> {after} tokens, {self.share:.0%} of the multiply-adds'

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.summary})'
