"""A classifier of mmpretrain whose tokens are reduced, distilled from the dense network."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmpretrain.models import ImageClassifier
from torch import Tensor

from ..errors import UsageError
from ..layers.options import check_idle
from ..layers.tokens import Tokens
from .distillation import (
    amount_error,
    drawn_budget,
    freeze_but,
    last_tokens,
    learns_amount,
    logit_divergence,
    token_error,
)
from .reduction import TokenReduction, reduction_of, restore_


class DistilledClassifier(ImageClassifier):
    """An ``ImageClassifier`` that learns from a teacher, the dense network, while a budget of tokens is drawn anew.

    The loss is the head's own plus ``logit_weight`` times :func:`.logit_divergence` plus ``token_weight`` times
    :func:`.token_error`, plus ``cost_weight`` times :func:`.amount_error` for a method that learns how many tokens it
    keeps. Batch augmentations go on as usual: the teacher gets the mixed images.

    The teacher is no part of the model: it is in evaluation mode, has no gradients, and is in no checkpoint, and is
    read when training starts, so that testing does not need its file. Checkpoints are those of the same config with
    ``type='ImageClassifier'``, and of its backbone without ``mmstvit.Reduced``.

    Args:
        backbone: as of ``ImageClassifier``; a ``mmstvit.Reduced``, or an ``STViT`` with a reduction of its own. The
            budget of its config is that of validation and test.
        neck: as of ``ImageClassifier``.
        head: as of ``ImageClassifier``.
        teacher_ckpt: the dense network's checkpoint, a path or URL.
        teacher_config: the dense network's config, a path or a name of the model index, or its ``model`` as a dict;
            ``None`` for this very network without its reduction.
        budget: (least, most) share of the multiply-adds of the dense layers, of which one is drawn for each training
            step, so that one checkpoint serves all of them; ``None`` for the amount of the config throughout.
        learn: what is learnt: ``'all'``; ``'norms'``, weights and biases of the norm layers alone; or, of methods that
            have weights, those alone: ``'embedding'`` of DTEM, ``'predictors'`` of DynamicViT, ``'thresholds'`` of
            LTMP.
        logit_weight: of the divergence of the logits.
        temperature: of both softmaxes in it.
        token_weight: of the error of the last layer's tokens.
        cost_weight: of the error of the amount; a method that learns it needs one, and others take none.
        seed: of the budgets.
        **options: further ones of ``ImageClassifier``.

    Raises:
        ValueError: a setting that is out of range, cannot take effect or does not fit the backbone.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        teacher_ckpt: str | None = None,
        teacher_config: str | dict | None = None,
        budget: Sequence[float] | None = None,
        learn: str = 'all',
        logit_weight: float = 1.0,
        temperature: float = 1.0,
        token_weight: float = 0.0,
        cost_weight: float = 0.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(backbone, neck, head, **options)
        weights = dict(logit_weight=logit_weight, token_weight=token_weight)
        for name, weight in dict(weights, cost_weight=cost_weight).items():
            if not weight >= 0:
                raise ValueError(f'{name}={weight} must be at least 0')
        if not temperature > 0:
            raise ValueError(f'temperature={temperature} must be above 0')
        if not logit_weight:
            check_idle('logit_weight=0', temperature=(temperature, 1.0))
        if not any(weights.values()):
            check_idle(
                'logit_weight=0 and token_weight=0',
                teacher_ckpt=(teacher_ckpt, None),
                teacher_config=(teacher_config, None),
            )
        elif not teacher_ckpt:
            raise ValueError('teacher_ckpt must name the checkpoint of the dense network')
        self.teacher_ckpt: Any = teacher_ckpt  # None: there is no teacher
        self.teacher_config = teacher_config
        self.logit_weight, self.temperature, self.token_weight = logit_weight, temperature, token_weight
        self.cost_weight = self._checked_cost(cost_weight, budget)
        self.seed = seed
        self.budget: Any = None if budget is None else self._checked(budget)
        if teacher_ckpt and teacher_config is None and reduction_of(self) is None:
            raise ValueError('teacher_config must name the dense network: this one cannot do without its reduction')
        if token_weight:
            with last_tokens(self):  # raises where there are none
                pass
        freeze_but(self, learn)
        self._configured: Any = None  # options of the reduction, while a drawn budget is in place
        self._teacher: tuple[nn.Module, ...] = ()  # in a tuple: no submodule

    def _checked_cost(self, weight: float, budget: Sequence[float] | None) -> float:
        """Return the weight, which is above 0 where the amount is learnt and 0 where it is not."""
        reduction = reduction_of(self)
        learns = reduction is not None and learns_amount(reduction)
        if learns and budget is not None:
            raise ValueError(
                f'budget={budget!r}: {reduction.method} learns one amount, that of its options: leave it out'
            )
        if learns != (weight > 0):
            must = (
                'must be above 0: the method learns how many tokens it keeps' if learns else 'has no effect: no method'
            )
            raise ValueError(f'cost_weight={weight} {must}')
        return weight

    def _checked(self, budget: Sequence[float]) -> tuple[float, float]:
        """Return bounds that both can be kept."""
        right = isinstance(budget, Sequence) and len(budget) == 2 and 0 < budget[0] < budget[1] <= 1
        if not right:
            raise ValueError(f'budget={budget!r} must be (least, most), above 0 and at most 1')
        reduction = reduction_of(self)
        if reduction is None:
            raise ValueError(f'budget={budget!r} needs backbone=dict(type="mmstvit.Reduced", ...)')
        options = dict(reduction.options)
        for bound in budget:
            reduction.budget = bound
        reduction.apply(**options)
        return budget[0], budget[1]

    def teacher(self) -> nn.Module:
        """Return the dense network, read when it is first asked for."""
        if not self._teacher:
            self._teacher = (self._load_teacher(),)
        return self._teacher[0].to(next(self.parameters()).device)  # a strategy moves the model after it has weights

    def _load_teacher(self) -> nn.Module:
        from ..apis.models import get_model
        from ..apis.weights import load_weights, read_weights

        device = next(self.parameters()).device
        if self.teacher_config:
            config = self.teacher_config
            if isinstance(config, dict):
                config = Config(dict(default_scope='mmpretrain', model=copy.deepcopy(config)))
                config.model.data_preprocessor = copy.deepcopy(self.data_preprocessor)
            teacher = get_model(config, self.teacher_ckpt, device)
        else:
            teacher = copy.deepcopy(self)
            teacher._configured = None
            restore_(next(m for m in teacher.modules() if isinstance(getattr(m, 'reduction', None), TokenReduction)))
            load_weights(teacher, self.teacher_ckpt, read_weights(self.teacher_ckpt))
        for name, value in self.data_preprocessor.named_buffers():
            other = dict(teacher.data_preprocessor.named_buffers()).get(name)
            if other is None or not torch.equal(other.to(value.device), value):
                raise UsageError(f"the teacher's data_preprocessor has {name}={other} and the student's {value}")
        return teacher.requires_grad_(False).eval()

    def init_weights(self) -> None:
        """Initialise the weights, and read the teacher: what is wrong with it is told before training."""
        super().init_weights()
        if self.teacher_ckpt:
            self.teacher()

    def train(self, mode: bool = True) -> 'DistilledClassifier':
        """Set training mode; in evaluation the amount of the config is in place again."""
        super().train(mode)
        if not mode and self.__dict__.get('_configured') is not None:
            reduction: Any = reduction_of(self)
            reduction.apply(**self._configured)
            self._configured = None
        return self

    def _draw_budget(self) -> float:
        """Put the budget of this iteration in place; it stays for the backward pass, which may compute again."""
        reduction: Any = reduction_of(self)
        if self._configured is None:
            self._configured = dict(reduction.options)
        iteration = MessageHub.get_current_instance().get_info('iter', 0)
        reduction.budget = drawn_budget(self.budget, self.seed, iteration)
        return reduction.budget

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            inputs: images (B, C, height, width).
            data_samples: with their labels, or scores of mixed ones.

        Returns:
            The head's ``loss``; beside other terms it is called ``loss_cls``, and ``loss_logits``, ``loss_tokens`` and
            ``loss_cost``, with their weights, come to it. For the log, the drawn ``budget``.
        """
        drawn = {} if self.budget is None else dict(budget=inputs.new_tensor(self._draw_budget()))
        logits, tokens, feats = self._run(self, inputs)
        losses = {**self.head.loss(feats, data_samples), **drawn}
        if self.teacher_ckpt or self.cost_weight:
            losses['loss_cls'] = losses.pop('loss')  # mmengine's log has the sum under this name
        if self.cost_weight:
            reduction: Any = reduction_of(self)
            losses['loss_cost'] = self.cost_weight * amount_error(reduction, tokens.kept)
        if not self.teacher_ckpt:
            return losses
        with torch.no_grad():
            dense_logits, dense_tokens, _ = self._run(self.teacher(), inputs)
        if self.logit_weight:
            if logits.shape != dense_logits.shape:
                raise UsageError(f'the teacher has {dense_logits.shape[1]} classes and the student {logits.shape[1]}')
            losses['loss_logits'] = self.logit_weight * logit_divergence(logits, dense_logits, self.temperature)
        if self.token_weight:
            tokens = tokens if isinstance(tokens, Tokens) else Tokens(tokens, None)  # type: ignore[arg-type]
            dense = dense_tokens.x if isinstance(dense_tokens, Tokens) else dense_tokens
            losses['loss_tokens'] = self.token_weight * token_error(tokens, dense)
        return losses

    def _run(self, model: ImageClassifier, inputs: Tensor) -> tuple[Any, Any, tuple]:
        """Return logits and last tokens, each where it is needed, and what the head gets."""
        if not (self.token_weight or self.cost_weight):
            feats, tokens = model.extract_feat(inputs), None
        else:
            with last_tokens(model) as outputs:
                feats = model.extract_feat(inputs)
            tokens = outputs[-1]
        return model.head(feats) if self.logit_weight else None, tokens, feats
