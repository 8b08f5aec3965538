"""What steps ask of a transformer of another library."""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from ...functional.attention import attend
from ...functional.rotary import Rotary
from ...functional.windows import Size
from ..attention import AttentionLayout
from ..layout import WholeImage
from ..steps import Network, Step
from ..tokens import Tokens


class BlockAdapter:
    """A pre-norm block of another library, which steps call as they call a :class:`.TransformerBlock`.

    It is self-attention alone, and of a layout it uses the rotations. Norms, projections, LayerScale, stochastic depth
    and MLP are those of the block; attention is computed here, with PyTorch's fused kernel, since the methods need its
    keys, queries and values and a bias on its logits.

    Args:
        block: it stays as it is.

    Attributes:
        makes_masks: whether the library gives its blocks a mask that hides nothing when the model is exported.
        positions: name of the argument by which the library gives its blocks rotary positions, if it does.
    """

    makes_masks = False
    positions = ''

    def __init__(self, block: nn.Module) -> None:
        self.block: Any = block  # whose parts only its library knows

    def qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        """Normalise and project tokens (B, N, C) to queries, keys and values, each (B, heads, N, C / heads)."""
        raise NotImplementedError

    def rotary(self, positions: Any) -> Rotary:
        """Return the rotations of the patches, from what the library gives its blocks."""
        raise NotImplementedError

    def attention_branch(self, out: Tensor) -> Tensor:
        """Project the heads' outputs (B, N, C) to what is added to the tokens."""
        raise NotImplementedError

    def mlp(self, x: Tensor) -> Tensor:
        """Update the tokens (B, N, C) by the block's MLP."""
        raise NotImplementedError

    @property
    def attention(self) -> nn.Module:
        """The block's attention, in whose place this one is."""
        return self.block.attn

    @property
    def scale(self) -> float | None:
        """What the logits are multiplied by; ``None``: one over the root of the channels of a head."""
        return None

    @property
    def attention_dropout(self) -> float:
        """Dropout of the attention weights, in training."""
        raise NotImplementedError

    def __call__(
        self,
        x: Tensor,
        context: Sequence[Tensor] | None = None,
        layout: AttentionLayout | None = None,
        key_bias: Tensor | None = None,
        reduce: Callable[..., tuple[Tensor, Any]] | None = None,
    ) -> Any:
        """Self-attention, an optional reduction, MLP: :meth:`.TransformerBlock.forward` without a ``context``."""
        q, k, v = self.qkv(x)
        if layout is not None and layout.rotary is not None:
            q, k = layout.rotary.rotate(q), layout.rotary.rotate(k)
        dropout = self.attention_dropout if self.block.training else 0.0
        out = attend(q, k, v, None, key_bias, dropout, self.scale)
        x = x + self.attention_branch(out.transpose(1, 2).flatten(2))
        if reduce is None:
            return self.mlp(x)
        x, reduction = reduce(x, q, k, v)
        return self.mlp(x), reduction


class View:
    """A transformer of another library in one forward pass: what its own code is run on.

    It gives the first block the grid of the patches, which the library's blocks do not get. All else is of the
    transformer itself, and what its code sets is set on it.

    Args:
        vit: the library's module.

    Attributes:
        grid: of the patches.
        reads_patches: whether anything is done with patches after the blocks.
    """

    vit: Any
    grid: Any
    reads_patches: bool

    def __init__(self, vit: nn.Module) -> None:
        vars(self).update(vit=vit, grid=None, reads_patches=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vit, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self):
            vars(self)[name] = value
        else:
            setattr(self.vit, name, value)

    def blocks_on_grid(self, blocks: Iterable[nn.Module]) -> tuple[Callable[..., Any], ...]:
        """Return the blocks, the first of which is told the grid, and the last whether patches are read."""
        runs: list[Callable[..., Any]] = list(blocks)
        runs[0] = partial(runs[0], grid=self.grid)
        runs[-1] = partial(runs[-1], reads_patches=self.reads_patches)
        return tuple(runs)


class Transformer(NamedTuple):
    """A plain vision transformer of another library, whose blocks steps can run.

    Attributes:
        blocks: in order.
        adapt: makes an adapter of a block.
        network: their sizes; prefix tokens are class, distillation and register tokens.
        needs_all: whether the output has a place for each patch.
        outputs: numbers of the blocks whose outputs are returned.
        vit: the library's module, where it is run as a view; its own grid is taken for that of each image where not.
        view: of ``vit``.
        methods: names of those of ``vit`` that run the blocks.
        pools: whether features are of all patches, and not of the class token alone.
        reads_patches: whether anything is done with patches after the blocks.
        unserved: methods of ``vit`` that run the blocks too and cannot with fewer tokens, and what to do instead.
        stem: modules that make tokens of an image, in turn, where the blocks get the grid by what they return.
        patch_size: pixels of a patch along each axis, for ``stem``.
    """

    blocks: list[nn.Module]
    adapt: Callable[[nn.Module], BlockAdapter]
    network: Network
    needs_all: bool = False
    outputs: Sequence[int] = ()
    vit: Any = None
    view: type[View] = View
    methods: tuple[str, ...] = ()
    pools: bool = False
    reads_patches: bool = True
    unserved: tuple[tuple[str, str], ...] = ()
    stem: tuple[nn.Module, ...] = ()
    patch_size: Size = ()

    def check(self, steps: Sequence[Step]) -> None:
        """Refuse steps that the model cannot be run by.

        Raises:
            ValueError: they drop tokens of a map that has a place for each patch, or hide tokens that are pooled; or a
                method of ``vit`` calls ``super()``, which it cannot on a view.
        """
        if self.needs_all and _loses_patches(steps):
            raise ValueError(
                "the model's output is a map with a place for each patch, and the method drops tokens: give "
                'fuse_last=True, or take a method that merges'
            )
        for name in self.methods:
            if '__class__' in getattr(type(self.vit), name).__code__.co_freevars:
                raise ValueError(
                    f'{type(self.vit).__name__}.{name} calls super(), which does not go with token reduction: write '
                    "out there what it calls, or take the parent's class"
                )
        if self.pools and not self.needs_all and (hiding := next((step for step in steps if step.hides), None)):
            raise ValueError(
                f'{type(hiding).__name__} hides tokens at their places, and this network would pool them too: '
                "let it give the class token's features, or take STViT, which pools by sizes"
            )

    def check_own_code(self) -> None:
        """Refuse a model in which other code than the library's runs what is replaced here.

        Raises:
            ValueError: a ``forward`` was set on a module, as accelerate's hooks do, or attention has hooks.
        """
        methods = [(self.vit, name) for name in self.methods]
        for module, name in [*methods, *((module, 'forward') for module in (*self.blocks, *self.stem))]:
            run = vars(module).get(name)
            if run is not None and getattr(run, 'func', None) not in _OURS:
                raise ValueError(
                    f"{type(module).__name__}.{name} was set on the module itself, in the place of its class's, and "
                    'token reduction would set it aside: reduce the tokens first'
                )
        for attention in (self.adapt(block).attention for block in self.blocks):
            library, _, _ = type(attention).__module__.partition('.')  # whose own hooks pass over it in silence too
            hooks = (*attention._forward_hooks.values(), *attention._forward_pre_hooks.values())
            foreign = any(getattr(hook, '__module__', '').partition('.')[0] != library for hook in hooks)
            if 'forward' in vars(attention) or foreign:
                raise ValueError(
                    f'{type(attention).__name__} has hooks or a forward of its own, which token reduction would pass '
                    'over, as it computes the attention itself: remove them'
                )

    def run(self, steps: Sequence[Step]) -> None:
        """Let each block be run by a step, until :meth:`restore`."""
        finish = _unmerge if self.reads_patches and not _loses_patches(steps) else _keep
        last = len(self.blocks) - 1
        for i, (block, step) in enumerate(zip(self.blocks, steps, strict=True)):
            # An instance's own forward: a partial of a function can be copied, pickled and compiled.
            end = finish if i == last else partial(_go_on, finish) if i in self.outputs else None
            block.forward = partial(_forward, self.adapt(block), step, self.network, end)
        for name in self.methods:
            run: Any = partial(_on_view, self.view, self.vit, name)
            run.__signature__ = inspect.signature(getattr(self.vit, name))  # exporters name inputs by it
            setattr(self.vit, name, run)
        for name, instead in self.unserved:
            setattr(self.vit, name, partial(_refuse, name, instead))
        for module in self.stem:
            module.forward = partial(_with_grid, module, self.patch_size)

    @property
    def steps(self) -> list[Step]:
        """Those that run the blocks; none where the blocks run as they are."""
        runs = (vars(block).get('forward') for block in self.blocks)
        return [run.args[1] for run in runs if run is not None]

    def restore(self) -> None:
        """Let the blocks run as they did before."""
        for module in (*self.blocks, *self.stem):
            vars(module).pop('forward', None)
        for name in (*self.methods, *dict(self.unserved)):
            vars(self.vit).pop(name, None)


def _loses_patches(steps: Sequence[Step]) -> bool:
    return any(step.loses_patches for step in steps)


def _on_view(view: type[View], vit: nn.Module, method: str, *args: Any, **options: Any) -> Any:
    """Run the library's own method on a view of its module."""
    return getattr(type(vit), method)(view(vit), *args, **options)


def _with_grid(module: nn.Module, patch_size: Size, x: Tensor, *args: Any, **options: Any) -> Tensor:
    """Run a module of the stem, and let the grid of the patches go with what it returns."""
    out = type(module).forward(module, x, *args, **options)
    out.grid = getattr(x, 'grid', None) or tuple(n // p for n, p in zip(x.shape[-2:], patch_size))
    return out


def _refuse(name: str, instead: str, *args: Any, **options: Any) -> None:
    raise ValueError(f'{name} does not go with token reduction: {instead}, or call restore_(model) first')


def _forward(
    block: BlockAdapter,
    step: Step,
    network: Network,
    finish: Callable[[Tokens], Tensor] | None,
    x: Tensor | Tokens,
    attn_mask: Tensor | None = None,
    grid: Size | None = None,
    reads_patches: bool = True,
    **options: Any,
) -> Tensor | Tokens:
    """Run a block by its step. Between blocks goes all that is known of the tokens, in the place of a tensor."""
    options.pop('output_hidden_states', None)  # transformers takes them from hooks: those of the reduced tokens
    positions = options.pop(block.positions, None)
    if torch.compiler.is_exporting() and block.makes_masks:
        attn_mask = None
    refused = [
        name for name, value in (('attn_mask', attn_mask), *options.items()) if value is not None and value is not False
    ]
    if refused:
        raise ValueError(f'{", ".join(refused)} does not go with token reduction: call restore_(model) first')
    x = getattr(x, 'tokens', x)  # an output of the block before
    if not isinstance(x, Tokens):
        count = x.shape[1] - network.num_prefix
        grid = grid or getattr(x, 'grid', None)
        if grid is None or math.prod(grid) != count:  # not known, or patches were dropped in training
            grid = network.grid if math.prod(network.grid) == count else (count,)
        rotary = None if positions is None else block.rotary(positions).with_prefix(network.num_prefix)
        x = Tokens(x, WholeImage(tuple(grid), x.device, network.num_prefix, rotary=rotary))
    tokens = step(block, x)
    if finish is None:
        return tokens
    return (finish if reads_patches else _keep)(tokens)


_OURS = (_forward, _on_view, _with_grid, _refuse)


def _unmerge(tokens: Tokens) -> Tensor:
    """Give each patch the value of its token: heads that pool, and maps, need not know of the reduction."""
    return tokens.unmerge()


def _go_on(finish: Callable[[Tokens], Tensor], tokens: Tokens) -> Tensor:
    """Give what the library takes for an output of a block, with the tokens that the next block goes on with."""
    out = finish(tokens)
    out = out.view_as(out)  # never the tokens' own tensor, which would hold itself
    out.tokens = tokens  # type: ignore[attr-defined]
    return out


def _keep(tokens: Tokens) -> Tensor:
    """Leave the tokens as they are: patches that were dropped have no value, or none is wanted."""
    return tokens.x


def is_a(module: nn.Module, package: str, name: str) -> bool:
    """Return whether a module is of a class of this package and name, or inherits from it; nothing is imported."""
    return any(
        f'{kind.__module__}.'.startswith(f'{package}.') and kind.__name__ == name for kind in type(module).__mro__
    )


def mlp_ratio(mlp: nn.Module, width: int) -> float:
    """Return the hidden width of an MLP of two equal products, by its weights: gated ones have a third."""
    return sum(weight.numel() for weight in mlp.parameters() if weight.dim() == 2) / (2 * width**2)
