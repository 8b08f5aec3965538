"""Networks in folders of Hugging Face's form: ``config.json``, ``model.safetensors`` and a model card.

``mmstvit.save_pretrained(model, folder)`` writes one and ``mmstvit.from_pretrained(folder)`` reads it. One of a network
of timm is in timm's form: ``timm.create_model('local-dir:FOLDER', pretrained=True)`` reads it too, without the token
reduction. Such a folder holds no code.
"""

import importlib
import json
import re
import tempfile
from os import PathLike
from pathlib import Path
from typing import Any, cast

from torch import nn

from .apis.classifier import create_model
from .compat.requires import require
from .errors import UsageError, as_usage_error
from .io.checkpoints import load, save_safetensors
from .models.reduction import reduce_, reduction_of
from .version import __version__

require('huggingface_hub', 'hf', 'folders of pretrained networks')

from huggingface_hub import ModelHubMixin, hf_hub_download  # noqa: E402

CONFIG, WEIGHTS = 'config.json', 'model.safetensors'
_CARD = """---
{{ card_data }}
---

# {{ title }}

A vision transformer with {{ parameters }} parameters and {{ classes }} classes, saved by mmstvit, a toolbox for vision
transformers with fewer tokens ([STViT]({{ paper_url }}) and others).
{% if reduction %}
Its tokens are reduced as they go through the layers: {{ reduction }}.
{% endif %}
```python
import mmstvit

model = mmstvit.from_pretrained('FOLDER')  # in evaluation mode, without a toolbox
```

What it was trained on, and how well it does, is not written here: please add it.
"""


class Saved(
    ModelHubMixin,
    library_name='mmstvit',
    pipeline_tag='image-classification',
    tags=['image-classification', 'vision-transformer', 'token-reduction'],
    paper_url='https://arxiv.org/abs/2303.08685',
    model_card_template=_CARD,
):
    """What huggingface_hub saves, uploads and loads of a network.

    Args:
        model: of :func:`mmstvit.create_model` or of timm, with its tokens reduced or not.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write weights and config; called by ``save_pretrained``, which adds the card."""
        config = _config(self.model)
        save_safetensors(dict(state_dict=self.model.state_dict()), save_directory / WEIGHTS)
        (save_directory / CONFIG).write_text(json.dumps(config, indent=2) + '\n', encoding='utf-8')

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        """Return the card, of what is known of the network."""
        model, config, reduction = self.model, _config(self.model), reduction_of(self.model)
        facts = dict(
            title=config.get('name') or config['architecture'],
            parameters=f'{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M',
            classes=model.num_classes,
            reduction=reduction and reduction.summary,
        )
        return super().generate_model_card(*args, **{**facts, **kwargs})

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: dict | None = None, **download: Any) -> nn.Module:  # type: ignore[override]
        """Build the network of a folder or a repository; called by ``from_pretrained``, which reads the config."""
        if not isinstance(config, dict) or not config.keys() & {'name', 'architecture'}:
            raise UsageError(f'{model_id}: its {CONFIG} is missing or none of mmstvit or timm')
        weights = Path(model_id) / WEIGHTS
        if not Path(model_id).is_dir():
            weights = Path(hf_hub_download(model_id, WEIGHTS, **download))
        return _build(config, weights)


def _config(model: nn.Module) -> dict[str, Any]:
    """Return what it takes to build a network again, its token reduction included.

    Raises:
        UsageError: that is not known, or cannot be written as JSON.
    """
    if settings := getattr(model, 'settings', None):
        config = {**settings, 'num_classes': model.num_classes, 'mmstvit_version': __version__}
    elif getattr(model, 'pretrained_cfg', None):
        from timm.models._hub import save_config_for_hf

        with tempfile.TemporaryDirectory() as folder:
            save_config_for_hf(model, str(Path(folder, CONFIG)))
            config = json.loads(Path(folder, CONFIG).read_text(encoding='utf-8'))
    else:
        raise UsageError(f'{type(model).__name__} is not of mmstvit.create_model or timm: how to build it is not known')
    if reduction := reduction_of(model):
        config['reduction'] = dict(method=reduction.method, **reduction.options)
    with as_usage_error(TypeError, place='the settings of the network cannot be written as JSON'):
        json.dumps(config)
    return config


def _build(config: dict[str, Any], weights: Path) -> nn.Module:
    """Build a network of its config and load its weights as they are, their types included."""
    config = dict(config)
    reduction = config.pop('reduction', None)
    if 'architecture' in config:
        timm = require('timm', 'analysis', 'a network of timm')
        importlib.import_module('mmstvit.timm')  # it may be one of ours
        model = timm.create_model(f'local-dir:{weights.parent}')
    else:
        config.pop('mmstvit_version', None)
        model = create_model(**config)
    with as_usage_error(RuntimeError, place=f'{weights} is of another network than the {CONFIG} beside it'):
        model.load_state_dict(load(str(weights), 'cpu')['state_dict'], assign=True)
    if reduction:
        reduce_(model, **reduction)
    return model.eval()


def save_pretrained(model: nn.Module, folder: str | PathLike, **options: Any) -> None:
    """Write a network to a folder: ``config.json``, ``model.safetensors`` and ``README.md``, its card.

    A card that is there already stays.

    Args:
        model: of :func:`mmstvit.create_model` or ``timm.create_model``, with its tokens reduced or not.
        folder: where to.
        **options: of huggingface_hub's ``save_pretrained``, e.g. ``push_to_hub=True, repo_id='name/network'``.

    Raises:
        UsageError: how to build the network is not known, or a setting cannot be written as JSON.
        OSError: the folder cannot be written.
    """
    Saved(model).save_pretrained(Path(folder).expanduser(), **options)


def from_pretrained(folder: str | PathLike, **options: Any) -> nn.Module:
    """Build the network of a folder that :func:`save_pretrained` wrote; its outputs are the same to the last bit.

    Args:
        folder: its path, or the name of a repository on the Hugging Face Hub.
        **options: of huggingface_hub's ``from_pretrained``, e.g. ``revision``, ``local_files_only``.

    Returns:
        The network in evaluation mode, with the token reduction that it was saved with.

    Raises:
        UsageError: there is no such folder, it lacks a file, or weights and config do not belong together.
    """
    path = Path(folder).expanduser()
    if not path.is_dir() and not re.fullmatch(r'[\w-][\w.-]*(/[\w-][\w.-]*)?', str(folder)):
        raise UsageError(f'there is no folder {folder}, and a repository is named OWNER/NAME')
    return cast(nn.Module, Saved.from_pretrained(path if path.is_dir() else str(folder), **options))
