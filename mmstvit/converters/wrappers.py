"""Where a checkpoint keeps its weights, and what wrappers of modules put before their names."""

import re
from collections.abc import Mapping

from torch import Tensor

# Names under which checkpoints hold weights. mmengine takes the first wherever there is one; weights that are trained
# come before their moving average, DINO's teacher before its student.
WRAPPERS = (
    *('state_dict', 'model', 'model_state_dict', 'module', 'teacher'),
    *('state_dict_ema', 'model_ema', 'ema_state_dict', 'student'),
)
# Data parallelism, the moving averages of timm and mmengine, torch.compile (of parts too) and FSDP.
_PREFIX = re.compile(r'^(?:module\.)+|(?<![^.])(?:_orig_mod|_fsdp_wrapped_module)\.')


def sets_of_weights(checkpoint: Mapping) -> list[str]:
    """Return the names under which a checkpoint holds weights; the first is the one that is taken."""
    return [name for name in WRAPPERS if isinstance(checkpoint.get(name), Mapping) and checkpoint[name]]


def choice(checkpoint: Mapping) -> str | None:
    """Describe which weights of a checkpoint are taken, ``None`` where there is one set or mmengine's average."""
    names = sets_of_weights(checkpoint)
    if len(names) < 2 or set(names) == {'state_dict', 'ema_state_dict'}:  # mmengine writes the average into the first
        return None
    return f'the checkpoint holds {", ".join(names[:-1])} and {names[-1]}: {names[0]} is taken'


def unwrapped(checkpoint: Mapping) -> Mapping[str, Tensor]:
    """Return the weights of a checkpoint without wrappers, ``checkpoint`` itself where there are none."""
    while names := sets_of_weights(checkpoint):
        checkpoint = checkpoint[names[0]]
    if not any(_PREFIX.search(name) for name in checkpoint):
        return checkpoint
    return {_bare(name): value for name, value in checkpoint.items()}


def _bare(name: str) -> str:
    while _PREFIX.search(name):
        name = _PREFIX.sub('', name)
    return name
