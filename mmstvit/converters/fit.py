"""Whether a renamed checkpoint fits a backbone, decided by its weights and not by the number of its tensors."""

import re
from collections.abc import Iterable, Mapping

import torch.nn as nn
from torch import Tensor

from ..errors import settings_of
from .recognise import looks_like

# Below this share of a backbone's weights a file is taken for another network's.
LITTLE = 0.5

# Parts of layers without which a network is another one: a pattern of their names, what they are, and the option that
# makes room for them.
_PARTS = (
    (r'.*encoder\.layers\.\d+\.layer_scale_[12]', 'LayerScale', 'layer_scale_init_value=1e-5'),
    (r'.*encoder\.layers\.\d+\.attn\.[qk]_norm\..*', 'norms of queries and keys', 'qk_norm=True'),
    (r'register_tokens', '{} register tokens', 'num_register_tokens={}'),
    (r'norm_pre\..*', 'a norm before the layers', None),
)


def some(names: list[str], limit: int = 4) -> str:
    """Format the first of many names and the number of the others."""
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def share(tensors: Mapping[str, Tensor], names: Iterable[str]) -> float:
    """Return the share that some tensors have in the weights of all."""
    total = sum(tensor.numel() for tensor in tensors.values())
    return sum(tensors[name].numel() for name in names) / max(total, 1)


def check_parts(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, own: Mapping[str, Tensor]) -> None:
    """Refuse a file with parts that a backbone lacks, without which it computes something else.

    Args:
        module: the backbone.
        state_dict: the file, in our names.
        prefix: of the backbone in it.
        own: the backbone's tensors.

    Raises:
        ValueError: naming what the file has, and the option that makes room for it.
    """
    spare = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    spare = {name: value for name, value in spare.items() if name not in own and _beside(name, own)}
    lacking, options = [], []
    for pattern, what, option in _PARTS:
        names = [name for name in spare if re.fullmatch(pattern, name)]
        if names:
            number = spare[names[0]].shape[1] if '{}' in what else 0
            lacking.append(what.format(number))
            if option and option.partition('=')[0] in settings_of(type(module)):
                options.append(option.format(number))
        for name in names:
            del spare[name]
    if any(name.startswith('fc_norm.') for name in spare) and 'norm.weight' in own:
        lacking.append('a norm after the mean over the tokens')
    lacking += _of_layers(spare, own)
    if lacking:
        mend = f': set {", ".join(options)} of the backbone' if len(options) == len(lacking) else ''
        raise ValueError(
            f'the checkpoint has {some(lacking)}, and {type(module).__name__} as it is configured has not{mend}'
        )


def _beside(name: str, own: Mapping[str, Tensor]) -> bool:
    """Return whether a tensor is of a layer that is ours too, or of none; other networks are judged as a whole."""
    layer = re.match(r'(.*encoder\.)layers\.\d+\.', name)
    return layer is None or f'{layer[1]}layers.0.norm1.weight' in own


def _of_layers(spare: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Describe what the layers of a file have beside ours."""
    layers = [match for name in spare if (match := re.fullmatch(r'encoder\.layers\.(\d+)\.(.*)', name))]
    count = 1 + max((int(name.split('.')[2]) for name in own if name.startswith('encoder.layers.')), default=-1)
    beyond = {int(match[1]) for match in layers} - set(range(count))
    parts = dict.fromkeys(match[2] for match in layers if int(match[1]) < count)
    return [f'{part} in its layers' for part in parts] + ([f'{1 + max(beyond)} layers'] if beyond else [])


def report(what: str, state_dict: Mapping[str, Tensor], prefix: str, own: Mapping[str, Tensor], limit: int = 4) -> str:
    """Return a line on how a renamed file fits a backbone.

    Args:
        what: the backbone's name.
        state_dict: the file, in our names.
        prefix: of the backbone in it.
        own: the backbone's tensors.
        limit: names of tensors that are told, of each kind.

    Raises:
        ValueError: less than half of the backbone's weights match, and there is more in the file than what does.
    """
    shapes = {name: state_dict[prefix + name].shape for name in own if prefix + name in state_dict}
    matched = [name for name in shapes if shapes[name] == own[name].shape]
    other = [name for name in shapes if shapes[name] != own[name].shape]
    in_file = sum(name.startswith(prefix) for name in state_dict)
    if share(own, matched) < LITTLE and not 0 < in_file == len(matched):  # a part of the model's own is welcome
        looks = f'it looks like {looks_like(state_dict)}; its names are {some(sorted(state_dict))}'
        if share(own, other) >= LITTLE:
            name = next(name for name in other if 'weight' in name)
            theirs, ours = tuple(shapes[name]), tuple(own[name].shape)
            looks = f'the names fit but not the sizes, {name} is {theirs} in the file and {ours} in the model'
        raise ValueError(
            f'the checkpoint is of another model: {len(matched)} of the {len(own)} tensors of {what} match, '
            f'{share(own, matched):.0%} of its weights; {looks}'
        )
    line = f'{what}: {len(matched)} of {len(own)} tensors matched'
    missing = [name for name in own if name not in shapes]
    unexpected = [name for name in state_dict if name.startswith(prefix) and name.removeprefix(prefix) not in own]
    for title, names in (('missing', missing), ('of another shape', other), ('unexpected', unexpected)):
        if names:
            line += f'; {title}: {some(names, limit)}'
    return line
