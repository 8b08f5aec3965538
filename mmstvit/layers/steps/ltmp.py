"""LTMP: in each layer tokens are merged and pruned by thresholds that are learnt."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ...functional.matching import bipartite_soft_matching
from ...functional.reduction import merge_weighted, selection_of
from ...functional.scores import attention_received
from ...functional.soft_matching import above, sharing, threshold_matching
from ...functional.windows import Size
from ..tokens import Tokens
from .base import Amount, Network, ReducingStep, Step
from .drop import best, logit_bias
from .hiding import hide
from .schedule import plan

_MOMENTUM = 0.02


class Thresholds(nn.Module):
    """The thresholds of a layer, and how many tokens they removed in training, which is how many a test removes.

    At the start no token is above the one or below the other. The mean amounts of the last steps of training are kept
    as batch norm keeps its mean, and as there a step counts twice where its activations are computed again; before
    training, merging and pruning have the same part in what is planned.

    Args:
        keep_rate: share of the tokens that is planned to be kept; weights that were learnt for another one are refused.
    """

    removed: Tensor

    def __init__(self, keep_rate: float) -> None:
        super().__init__()
        self.keep_rate = keep_rate
        merged = (1 - keep_rate) / 2
        self.shares = (merged, 1 - keep_rate / (1 - merged))
        self.merge, self.prune = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))
        self.register_buffer('planned', torch.tensor([keep_rate]))
        self.register_buffer('removed', torch.tensor(self.shares))

    def extra_repr(self) -> str:
        return f'keep_rate={self.keep_rate:.6g}'

    @torch.no_grad()
    def count(self, before: Tensor, merged: Tensor, after: Tensor) -> None:
        """Remember how many tokens there are, in shares of each other, from masks (B, N)."""
        before, merged, after = before.sum(), merged.sum(), after.sum()
        removed = torch.stack((1 - merged / before, 1 - after / merged.clamp(min=1)))
        self.removed.lerp_(removed.to(self.removed.dtype), _MOMENTUM)

    def split(self, count: int) -> tuple[int, int]:
        """Return how many of so many tokens a test merges, and then prunes."""
        merged = min(round(self.shares[0] * count), count // 2)
        return merged, min(round(self.shares[1] * (count - merged)), count - merged - 1)

    def _read(self) -> None:
        # Numbers and no tensor, so that shapes do not depend on values in compiled and exported graphs.
        if not self.removed.is_meta:
            self.shares = tuple(self.removed.tolist())

    def train(self, mode: bool = True) -> 'Thresholds':
        """Set training mode; in evaluation the amounts are those of the training until now."""
        super().train(mode)
        if not mode:
            self._read()
        return self

    def _load_from_state_dict(self, state: dict, prefix: str, *args: Any) -> None:
        errors = args[-1]
        planned = state.get(f'{prefix}planned')
        if planned is not None and not planned.is_meta and abs(float(planned) - self.keep_rate) > 1e-3:
            errors.append(
                f'thresholds of {prefix[:-1]} were learnt to keep {float(planned):.3f} of the tokens, and the options '
                f'say {self.keep_rate:.3f}'
            )
        super()._load_from_state_dict(state, prefix, *args)
        self._read()


class LTMP(ReducingStep):
    """Merge pairs that are more similar than a threshold, then prune tokens that get less attention than another.

    "Learned Thresholds Token Merging and Pruning for Vision Transformers", arXiv 2307.10780, between attention and MLP:
    pairs and similarity are those of :class:`.ToMe`; a token's importance is the attention that it gets from all,
    relative to the mean. In training removed tokens stay in their places, hidden, with gradients straight through.
    Ours: in a test as many are merged and pruned, of each image, as the thresholds did on average in the last steps of
    training, so that shapes do not depend on the image; and a merged token's importance is the mean of its members'.

    Args:
        amount: share of the tokens that is planned to be kept.
        temperature: of the gradients.
    """

    loses_patches = hides = learns_amount = True

    def __init__(self, amount: Amount, temperature: float) -> None:
        super().__init__(amount)
        self.temperature, self.thresholds = temperature, Thresholds(amount.keep_rate)

    def kept(self, count: int, grid: Size) -> int:
        return count - sum(self.thresholds.split(count))

    def reduce(self, tokens: Tokens, q: Tensor, k: Tensor, v: Tensor) -> Tokens:
        if self.amount == Amount():
            return tokens
        prefix = tokens.layout.num_prefix
        there = F.pad(tokens.kept[-1], (prefix, 0), value=1) if tokens.kept else None
        with torch.no_grad():
            score = attention_received(q, k, logit_bias(tokens), there)[..., None]
        metric = k.detach().mean(dim=1)
        if self.thresholds.training:
            return self._hide(tokens, metric, score, torch.ones_like(score[..., 0]) if there is None else there)
        return self._remove(tokens, metric, score)

    def _remove(self, tokens: Tokens, metric: Tensor, score: Tensor) -> Tokens:
        prefix = tokens.layout.num_prefix
        count = tokens.x.shape[1] - prefix
        merged, pruned = self.thresholds.split(count)
        matching = bipartite_soft_matching(metric, merged, prefix)
        x, size = merge_weighted(matching, torch.cat((tokens.x, score.to(tokens.x.dtype)), dim=-1), tokens.size)
        selection = selection_of(best(x[:, prefix:, -1], count - merged - pruned, prefix), x.shape[1])
        # Sliced after, since OpenVINO 2026.4 loses a slice that is gathered from.
        kept = selection.merge(x)[..., :-1]
        return tokens.reduced(matching, x, size).reduced(selection, kept, selection.merge(size))

    def _hide(self, tokens: Tokens, metric: Tensor, score: Tensor, there: Tensor) -> Tokens:
        prefix, thresholds, old = tokens.layout.num_prefix, self.thresholds, torch.cat((tokens.x, score), dim=-1)
        share = threshold_matching(metric, thresholds.merge, there > 0.5, prefix, self.temperature)
        merged = there * share.diagonal(dim1=1, dim2=2)
        size = torch.ones_like(score) if tokens.size is None else tokens.size
        x = sharing(share).merge(torch.cat((old * size, size), dim=-1))
        x, size = x[..., :-1] / x[..., -1:].clamp(min=0.5), x[..., -1:]
        x = x.where(merged[..., None] > 0.5, old)
        after = F.pad(above(x[:, prefix:, -1], thresholds.prune, self.temperature), (prefix, 0), value=1)
        kept = merged * after
        thresholds.count(*(mask[:, prefix:] for mask in (there, merged, kept)))
        merged_tokens = tokens.reduced(sharing(share), x[..., :-1].to(tokens.x.dtype), size)
        return hide(merged_tokens._replace(kept=(*tokens.kept, kept[:, prefix:])), size * after[..., None])


def ltmp(network: Network, temperature: float = 0.1, blocks: Sequence[int] | None = None, **amount: Any) -> list[Step]:
    """Return the steps of LTMP: in each block tokens are merged and pruned by learned thresholds.

    Args:
        network: the transformer. Where it pools the patches, in training it must do so by their sizes, as
            :class:`.STViT` does; others must give the class token's features.
        temperature: of the gradients.
        blocks: where, from 0; by default in all.
        **amount: ``budget``, or ``keep_rate``, see :func:`.plan`. It is what the cost shall be in the end; how many
            tokens each block removes is learnt.

    Raises:
        ValueError: ``temperature`` is not above 0, or amounts that cannot be.
    """
    if not temperature > 0:
        raise ValueError(f'temperature={temperature} must be above 0')

    def make(layer: int, amounts: Sequence[Amount]) -> Step:
        if amounts[layer].r:
            raise ValueError(f'r={amounts[layer].r}: LTMP learns shares of the tokens, give budget or keep_rate')
        return LTMP(amounts[layer], temperature)

    return plan(network, make, amount, blocks, range(network.num_layers), weights=True)
