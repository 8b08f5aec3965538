"""What a layer does with tokens: one file a method, and the methods by the names that configs give them.

A method is a function ``(network, **options) -> list of steps``: one step for each block of a plain transformer, whose
sizes ``network`` says.
"""

import inspect
from collections.abc import Callable

from .atm import atm
from .ats import ats
from .base import Network, ReducingStep, SelfAttention, Step
from .controls import grid_pool, random
from .dpcknn import dpcknn
from .dtem import dtem
from .dynamicvit import dynamicvit
from .evit import evit, topk
from .expedite import expedite
from .ltmp import ltmp
from .pitome import pitome
from .representation_shift import representation_shift
from .stgm import Generation, Recovery, Refinement, TokenMapStep, stgm
from .tome import tome
from .tomesd import ToMeSD, tomesd

METHODS: dict[str, Callable[..., list[Step]]] = {
    'STGM': stgm,
    'ToMe': tome,
    'ATM': atm,
    'PiToMe': pitome,
    'DPCKNN': dpcknn,
    'ToMeSD': tomesd,
    'Expedite': expedite,
    'TopK': topk,
    'EViT': evit,
    'ATS': ats,
    'RepresentationShift': representation_shift,
    'Random': random,
    'GridPool': grid_pool,
    'DTEM': dtem,
    'DynamicViT': dynamicvit,
    'LTMP': ltmp,
}
# Those with weights of their own, which need training.
TRAINED = ('STGM', 'DTEM', 'DynamicViT', 'LTMP')


def build_steps(reduce: dict | None, network: Network) -> list[Step]:
    """Return one step for each block of a plain transformer.

    Args:
        reduce: the method, a dict with ``type``, a name in ``METHODS``, and options of its own; ``None`` for none.
        network: the transformer.

    Raises:
        ValueError: an unknown method, or options that do not fit.
    """
    if reduce is None:
        return [SelfAttention() for _ in range(network.num_layers)]
    options = dict(reduce)
    name = options.pop('type', None)
    if name not in METHODS:
        raise ValueError(f'reduce=dict(type={name!r}) is unknown, choose from {tuple(METHODS)}')
    for option, parameter in inspect.signature(METHODS[name]).parameters.items():
        value = options.get(option, parameter.default)
        if isinstance(parameter.default, (bool, int)) and type(value) is not type(parameter.default):
            kind = 'True or False' if isinstance(parameter.default, bool) else 'an integer'
            raise ValueError(f'{option}={value!r} must be {kind}')
    try:
        return METHODS[name](network, **options)
    except TypeError as error:  # an unknown option, or one that is missing
        raise ValueError(f'reduce=dict(type={name!r}): {str(error).rpartition("() ")[2]}') from error
