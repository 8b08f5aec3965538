"""What a network costs: multiply-adds and parameters, in all and part by part, and the tokens that enter each layer.

``count(model, image)`` counts with PyTorch's own counter, which sees the matrix products and convolutions as they are
computed. What is here beside it: the fused attention kernel of CPUs, which it does not know, and a table of parts.
"""

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ..layers.steps import Step

aten = torch.ops.aten

# Products of two activations: where they are computed, there is attention.
_ATTENTION = ('aten.bmm', 'aten.baddbmm', 'aten._scaled_dot_product', 'aten._flash_attention', 'aten._efficient_att')


@dataclass(frozen=True)
class Part:
    """A part of a network, in the order of its modules.

    Attributes:
        name: the module's name; ``''`` for all that belongs to no part.
        multiply_adds: of all its calls.
        parameters: those not counted in an earlier part.
        input: shape of the first tensor that enters it, without the batch; ``None`` where none does.
        tokens: of an image or clip that enter a transformer layer; ``None`` for other parts.
        context: further tokens that are keys and values there; ``None`` for self-attention.
    """

    name: str
    multiply_adds: int
    parameters: int
    input: tuple[int, ...] | None = None
    tokens: int | None = None
    context: int | None = None

    @property
    def flops(self) -> int:
        """Floating point operations: each multiply-add is two."""
        return 2 * self.multiply_adds

    @property
    def stage(self) -> str:
        """The stage a part belongs to: ``stages.2`` of ``stages.2.layers.5``, ``layers`` of ``layers.5``."""
        numbered = re.match(r'(.*?\.\d+)\.', self.name)
        return numbered[1] if numbered else re.sub(r'\.\d+$', '', self.name)


@dataclass(frozen=True)
class Complexity:
    """The cost of one call of a network.

    Attributes:
        multiply_adds: of matrix products, convolutions and attention. Norms, activations, softmax, pooling, additions
            and resizing are not counted, as in published figures.
        parameters: elements of all parameters, frozen ones too.
        parts: they sum up to the whole.
        modules: multiply-adds by module name.
        not_counted: names of modules with weights whose operations the counter cannot see (compiled ones of mmcv).
    """

    multiply_adds: int
    parameters: int
    parts: tuple[Part, ...] = ()
    modules: dict[str, int] = field(default_factory=dict, repr=False)
    not_counted: tuple[str, ...] = ()

    @property
    def flops(self) -> int:
        """Floating point operations: each multiply-add is two."""
        return 2 * self.multiply_adds


def count(function: Callable[..., Any], *inputs: Any, module: nn.Module | None = None, **kwargs: Any) -> Complexity:
    """Count the multiply-adds of ``function(*inputs, **kwargs)``, of the whole batch.

    The same figure comes out on any device, ``meta`` included, and whichever way attention is computed: by the fused
    kernels or written out. A module is run without gradients, in the mode (training or evaluation) that it is in.

    Args:
        function: a module; or any function, a training step with its backward pass, say.
        *inputs: its arguments.
        module: the network that the function runs, for its parts; by default the function itself if it is a module.
        **kwargs: its keyword arguments.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    is_module = isinstance(function, nn.Module)
    if isinstance(function, nn.Module) and module is None:
        module = function
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # nn.MultiheadAttention as one operation, which would not be seen
    try:
        inside: Inside = Counter()
        with (
            _entering(module, counter, inside) as seen,
            torch.set_grad_enabled(torch.is_grad_enabled() and not is_module),
            counter,
        ):
            function(*inputs, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    total = counter.get_total_flops() // 2
    if module is None:
        return Complexity(total, 0)
    root = type(module).__name__
    by_operation = {
        name.removeprefix(root).removeprefix('.'): operations
        for name, operations in counter.get_flop_counts().items()
        if name == root or name.startswith(f'{root}.')
    }
    modules = dict.fromkeys(seen, 0) | {name: sum(ops.values()) // 2 for name, ops in by_operation.items()}
    parts = _parts(module, modules, _layers(module, by_operation), seen, total, inside)
    return Complexity(total, _parameters(module), parts, modules, _not_counted(module))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _attention_on_cpu(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_on_cpu_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


_attention_on_cpu._get_raw = _attention_on_cpu_backward._get_raw = True  # type: ignore[attr-defined]
_CPU_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_on_cpu,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_on_cpu_backward,
}


Shape = tuple[int, ...]
Inside = Counter[tuple[str, str]]  # multiply-adds by the names of a caller, and of a module that is no part of it


@contextlib.contextmanager
def _entering(
    model: nn.Module | None, counter: FlopCounterMode, inside: Inside
) -> Iterator[dict[str, tuple[Shape | None, list[Shape]]]]:
    """Record what enters each module at its first call: the shape of its first tensor, and of lists of tensors.

    A module that is called by one that it is no part of, as a step's embedding by the block that it runs, goes to
    ``inside`` with its multiply-adds, by the names of the two.
    """
    seen, calls = {}, []

    def begin(name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        calls.append((name, counter.get_total_flops()))
        if name not in seen:
            values = [*args, *kwargs.values()]
            tensors = [tuple(x.shape) for x in values if isinstance(x, Tensor)]
            lists = [x for x in values if isinstance(x, (list, tuple)) and all(isinstance(t, Tensor) for t in x)]
            seen[name] = tensors[0] if tensors else None, [tuple(t.shape) for x in lists for t in x]

    def end(name: str, module: nn.Module, args: tuple, out: Any) -> None:
        _, before = calls.pop()
        called = name
        for caller, _ in reversed(calls):
            if caller in _ancestors(name) or (called != name and caller not in _ancestors(called)):
                break  # it is a part of that; or that has called a caller that is no part of it
            inside[caller, name] += (counter.get_total_flops() - before) // 2
            called = caller

    with contextlib.ExitStack() as stack:
        for name, module in () if model is None else model.named_modules():
            stack.enter_context(module.register_forward_pre_hook(functools.partial(begin, name), with_kwargs=True))
            stack.enter_context(module.register_forward_hook(functools.partial(end, name)))
        yield seen


def _layers(model: nn.Module, by_operation: dict[str, dict]) -> set[str]:
    """Return the transformer layers by name: the list element around each innermost module that computes attention."""
    modules = dict(model.named_modules())
    attending = {
        name
        for name, operations in by_operation.items()
        if any(str(op).startswith(_ATTENTION) for op in operations) and not isinstance(modules.get(name), Step)
    }
    outer = {ancestor for name in attending for ancestor in _ancestors(name)}
    layers = set()
    for name in attending - outer:
        around = [name, *_ancestors(name)]
        elements = [n for n in around[:-1] if isinstance(modules[_parent(n)], (nn.ModuleList, nn.Sequential))]
        layers.add(elements[0] if elements else _parent(name))
    return layers - {''}


def _parent(name: str) -> str:
    return name.rpartition('.')[0]


def _ancestors(name: str) -> Iterator[str]:
    """Yield the names of the modules around one, innermost first, the network itself (``''``) last."""
    while name:
        name = _parent(name)
        yield name


def _parts(
    model: nn.Module,
    modules: dict[str, int],
    layers: set[str],
    seen: dict,
    total: int,
    inside: Inside,
) -> tuple[Part, ...]:
    """Return the layers, and the largest modules without any that lie beside them."""
    opened = {'', 'backbone'} | {ancestor for name in layers for ancestor in _ancestors(name)}
    counted: set[int] = set()
    parts = []
    first = seen.get('', (None,))[0]
    batch = first[0] if first else 1

    def visit(name: str, module: nn.Module) -> None:
        # What was never called itself, a list say, is looked into; so are steps, which call a block beside them.
        called = name in modules and not isinstance(module, Step)
        if name in opened or (not called and any(n.startswith(f'{name}.') for n in modules)):
            for child, submodule in module.named_children():
                visit(f'{name}.{child}' if name else child, submodule)
        elif called:
            own = [p for p in module.parameters() if id(p) not in counted]
            counted.update(map(id, own))
            shape, context = seen.get(name, (None, []))
            tokens = _tokens(module, shape, context, batch) if name in layers else (None, None)
            parts.append(
                Part(name, modules[name], sum(p.numel() for p in own), None if shape is None else shape[1:], *tokens)
            )

    visit('', model)
    names = {part.name for part in parts}
    other = Counter[str]()  # of other parts
    for (caller, name), multiply_adds in inside.items():
        other[caller] += multiply_adds if name in names else 0
    parts = [replace(part, multiply_adds=part.multiply_adds - other[part.name]) for part in parts]
    parts = [part for part in parts if part.multiply_adds or part.parameters]
    multiply_adds = total - sum(part.multiply_adds for part in parts)
    parameters = _parameters(model) - sum(part.parameters for part in parts)
    return (*parts, *([Part('', multiply_adds, parameters)] if multiply_adds or parameters else []))


def _tokens(
    layer: nn.Module, shape: Shape | None, context: Sequence[Shape], batch: int
) -> tuple[int | None, int | None]:
    """Count the tokens of one image that enter a layer, and of its context; the first norm has the channels."""
    width = next((m.normalized_shape[-1] for m in layer.modules() if isinstance(m, nn.LayerNorm)), None)
    if shape is None or width is None or width not in (shape[-1], shape[1]):
        return None, None
    context = [s for s in context if s[-1] == width]
    return (
        torch.Size(shape).numel() // width // batch,
        sum(torch.Size(s).numel() // width // batch for s in context) if context else None,
    )


def _not_counted(model: nn.Module) -> tuple[str, ...]:
    return tuple(
        name
        for name, module in model.named_modules()
        if type(module).__module__.startswith('mmcv.ops') and any(True for _ in module.parameters(recurse=False))
    )
