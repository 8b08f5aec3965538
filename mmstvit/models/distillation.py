"""Knowledge distillation of a network with fewer tokens from the dense one: losses, budgets, and what is learnt."""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..functional.reduction import compose
from ..layers.adapters import transformer_of
from ..layers.encoder import Encoder
from ..layers.steps.base import Amount, Counts, Network, ReducingStep, SelfAttention, Step
from ..layers.steps.dtem import MatchingEmbedding
from ..layers.steps.dynamicvit import Predictor
from ..layers.steps.ltmp import LTMP, Thresholds
from ..layers.steps.schedule import block_multiply_adds, multiply_add_share
from ..layers.tokens import Tokens
from ..registry import MODELS
from .reduction import TokenReduction

# What is learnt, the modules that it is of, and where those come from.
_PARTS = {
    'norms': ((nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm), 'norm layers'),
    'embedding': ((MatchingEmbedding,), 'embedding of reduce=dict(type="DTEM")'),
    'predictors': ((Predictor,), 'predictors of reduce=dict(type="DynamicViT")'),
    'thresholds': ((Thresholds,), 'thresholds of reduce=dict(type="LTMP")'),
}
LEARN = ('all', *_PARTS)


@MODELS.register_module()
def DistilledClassifier(**options: Any) -> nn.Module:
    """Build a :class:`.distilled_classifier.DistilledClassifier`: ``type='mmstvit.DistilledClassifier'`` in a config.

    It is a function named as the type that it stands for, so that mmpretrain is imported only where it is needed.

    Args:
        **options: of the class.
    """
    from .distilled_classifier import DistilledClassifier

    return DistilledClassifier(**options)


def logit_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the Kullback-Leibler divergence of a student's predictions from a teacher's, the mean over images.

    "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2: both softmaxes at a temperature T, and
    times T^2, so that its gradients do not shrink with T.

    Args:
        student: logits (B, classes).
        teacher: the same, without a gradient.
        temperature: T.
    """
    student, teacher = ((logits.float() / temperature).log_softmax(dim=-1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(student, teacher, reduction='batchmean', log_target=True)


def token_error(student: Tokens, teacher: Tensor) -> Tensor:
    """Return the mean squared error of tokens that were brought back to their patches.

    Tokens of both are normed before (LayerNorm without weights), so that the error does not depend on their scale,
    which is ours. Patches whose tokens were dropped have none.

    Args:
        student: tokens of the last layer, whose trace says which patches each stands for.
        teacher: the dense network's (B, N, C), prefix tokens first, without a gradient.

    Raises:
        ValueError: the networks differ in patches or channels.
    """
    x = student.x.float()
    x = compose(student.trace).unmerge(torch.cat((x, x.new_ones(*x.shape[:2], 1)), dim=-1))
    x, there = x[..., :-1], x[..., -1] > 0
    if x.shape != teacher.shape:
        raise ValueError(
            f'the teacher has tokens of the shape {tuple(teacher.shape[1:])} and the student of {tuple(x.shape[1:])}: '
            'set token_weight=0'
        )
    x, teacher = (F.layer_norm(tokens.float(), tokens.shape[-1:]) for tokens in (x, teacher))
    error = (x - teacher).square().mean(dim=-1)
    return (error * there).sum() / there.sum()


def learns_amount(reduction: TokenReduction) -> bool:
    """Return whether a reduction learns how many tokens it keeps."""
    return any(step.learns_amount for step in reduction.steps)


def amount_error(reduction: TokenReduction, kept: Sequence[Tensor]) -> Tensor:
    """Return how far a reduction that learns how many tokens it keeps is from the amount of its options.

    Of thresholds, ``(cost - target)^2`` with the shares of the multiply-adds that the images cost, on average, and that
    the options say ("Learned Thresholds Token Merging and Pruning", arXiv 2307.10780, section 3.4). Of predictors,
    ``sum_l mean_b (kept_bl - planned_l)^2``, in shares of the image's tokens after each layer l that reduces
    ("DynamicViT", arXiv 2106.02034, section 3.4).

    Args:
        reduction: of the student.
        kept: its ``Tokens.kept``.
    """
    network, shares = reduction.transformer.network, [there.mean(dim=1) for there in kept]  # (B,) each
    reducing = [step for step in reduction.steps if step.learns_amount and step.amount != Amount()]
    if any(isinstance(step, LTMP) for step in reducing):
        plan = [ReducingStep(step.amount) if step in reducing else SelfAttention() for step in reduction.steps]
        return (_cost(network, reduction.steps, reducing, shares) - multiply_add_share(network, plan)).square()
    planned = [
        count / math.prod(network.grid)
        for step, count in zip(reduction.steps, reduction.tokens, strict=True)
        if step in reducing
    ]
    return sum((share - plan).square().mean() for share, plan in zip(shares, planned, strict=True))


def _cost(network: Network, steps: Sequence[Step], reducing: Sequence[Step], shares: Sequence[Tensor]) -> Tensor:
    """Return the share of the multiply-adds, the mean over images, from the tokens after each layer that reduces."""
    total, left = math.prod(network.grid), iter(shares)
    dense = block_multiply_adds(network, Counts(total, total, total))
    cost: Any = 0
    count: Any = total  # numbers of tokens with gradients
    for step in steps:
        after: Any = total * next(left) if step in reducing else count
        cost, count = cost + block_multiply_adds(network, Counts(count, after, after)), after
    return (cost / (dense * len(steps))).mean()


@contextmanager
def last_tokens(model: nn.Module) -> Iterator[list[Tokens | Tensor]]:
    """While it is open, the tokens that leave the last layer of a plain transformer are appended to a list.

    They are :class:`.Tokens` where the layer is run by a step, else a tensor (B, N, C).

    Raises:
        ValueError: the model has no plain transformer.
    """
    outputs: list[Tokens | Tensor] = []

    def remember(module: nn.Module, args: Any, output: Any) -> None:
        is_tokens = isinstance(output, Tokens) or not isinstance(output, tuple)
        outputs.append(output if is_tokens else output[0])

    handle = _last_layer(model).register_forward_hook(remember)
    try:
        yield outputs
    finally:
        handle.remove()


def _last_layer(model: nn.Module) -> nn.Module:
    """Return the last step, or the last block where none runs it."""
    encoders = [module for module in model.modules() if isinstance(module, Encoder)]
    if len(encoders) > 1:
        raise ValueError('token_weight is for plain transformers, and this one has stages: set token_weight=0')
    if encoders:
        return encoders[0].steps[-1]
    transformer = transformer_of(model)
    return [*transformer.blocks, *transformer.steps][-1]


def drawn_budget(bounds: Sequence[float], seed: int, iteration: int) -> float:
    """Return the budget of a training iteration, uniform between bounds.

    It depends on nothing else, so that a training which is resumed draws what it would have drawn, and all processes
    draw the same.
    """
    return random.Random(f'{seed} {iteration}').uniform(*bounds)


def freeze_but(model: nn.Module, learn: str) -> None:
    """Freeze all parameters but those that are to be learnt.

    Args:
        model: changed in place.
        learn: ``'all'``, which freezes none; ``'norms'``, weights and biases of norm layers; or the weights of a method
            of reducing tokens: ``'embedding'``, ``'predictors'`` or ``'thresholds'``.

    Raises:
        ValueError: an unknown name, or the model has no such parameters.
    """
    if learn not in LEARN:
        raise ValueError(f'learn={learn!r} is unknown, choose from {LEARN}')
    if learn == 'all':
        return
    kinds, what = _PARTS[learn]
    learnt = {id(p) for module in model.modules() if isinstance(module, kinds) for p in module.parameters()}
    if not learnt:
        raise ValueError(f'learn={learn!r}: the model has no {what}')
    for parameter in model.parameters():
        parameter.requires_grad = parameter.requires_grad and id(parameter) in learnt
