"""What is trained for the evidence: pairs of a semantic and a dense network, and a study of the token budget."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)
# quick: small networks on digits, for two cores; gpu: DeiT-T and S on CIFAR-10, for a GPU.
TIERS = ('quick', 'gpu')
# The variable by which the configs of CIFAR-10 find it.
DATA_ROOT = 'CIFAR10'


@dataclass(frozen=True)
class Pair:
    """Networks on semantic tokens and their dense baseline, trained on the same data by the same schedule.

    Attributes:
        title: what is compared.
        semantic: names of configs, see :func:`config_file`.
        dense: name of the baseline's.
        data: what they are trained and tested on.
        metrics: keys of the test's metrics, with their names and what makes them per cent.
    """

    title: str
    semantic: tuple[str, ...]
    dense: str
    data: str
    metrics: tuple[tuple[str, str, float], ...] = (('accuracy/top1', 'top-1', 1.0),)

    @property
    def configs(self) -> tuple[str, ...]:
        """Of all, the dense baseline last."""
        return (*self.semantic, self.dense)

    @property
    def unit(self) -> str:
        """What is counted in speeds."""
        return 'clips' if 'clips' in self.data else 'images'


PAIRS = (
    Pair('STViT and ViT', ('stvit-tiny_digits',), 'vit-tiny_digits', '450 held-out digits at 32 px'),
    Pair(
        'STViTSwin, STViT-R and Swin',
        ('stvit-swin_digits', 'stvit-r_digits'),
        'swin_digits',
        '450 held-out digits at 96 px',
    ),
    Pair('STViT-T2T and T2T-ViT', ('stvit-t2t_digits',), 't2t-vit_digits', '450 held-out digits at 128 px'),
    Pair(
        'STViT-R and Swin in Mask R-CNN',
        ('mask-rcnn_stvit-r_digits',),
        'mask-rcnn_swin_digits',
        '200 held-out scenes of digits',
        (('coco/bbox_mAP', 'box AP', 100.0), ('coco/segm_mAP', 'mask AP', 100.0)),
    ),
    Pair(
        'STViT 3D and Video Swin',
        ('stvit-swin3d_digits',),
        'swin3d_digits',
        '400 held-out clips of moving digits',
        (('acc/top1', 'top-1', 100.0),),
    ),
)


GPU_PAIRS = (
    Pair('STViT-T and DeiT-T', ('stvit-t_cifar10',), 'deit-t_cifar10', '10,000 test images of CIFAR-10'),
    Pair('STViT-S and DeiT-S', ('stvit-s_cifar10',), 'deit-s_cifar10', '10,000 test images of CIFAR-10'),
)


@dataclass(frozen=True)
class Factor:
    """One setting of the token-budget study, changed while all others stay as in the config.

    Attributes:
        title: what is changed.
        config: name of the config.
        option: the key of the setting.
        values: (label, value) of each trial; ``default`` is among the labels.
        default: the label of the config's own value.
    """

    title: str
    config: str
    option: str
    values: tuple[tuple[str, Any], ...]
    default: str

    def options(self, label: str) -> dict[str, Any]:
        """The overrides of a trial: none for the config's own value."""
        return {} if label == self.default else {self.option: dict(self.values)[label]}


STUDY = (
    Factor(
        'semantic tokens',
        'stvit-tiny_digits',
        'model.backbone.semantic_grid',
        (('4', (2, 2)), ('9', (3, 3)), ('16', (4, 4)), ('36', (6, 6))),
        '16',
    ),
    Factor(
        'STGM after layer',
        'stvit-tiny_digits',
        'model.backbone.stgm_layer',
        (('1', 1), ('2', 2), ('3', 3), ('4', 4)),
        '2',
    ),
    Factor('pooling', 'stvit-tiny_digits', 'model.backbone.pooling', (('max', 'max'), ('avg', 'avg')), 'max'),
    Factor(
        'global centres G',
        'stvit-tiny_digits',
        'model.backbone.use_global',
        (('with', True), ('without', False)),
        'with',
    ),
    Factor('shortcut', 'stvit-r_digits', 'model.backbone.shortcut', (('on', True), ('off', False)), 'on'),
)

# Minutes of a training and its test with one thread (on a GPU beside five others), for the first estimate; real ones
# take their place as they come.
MINUTES = {
    'stvit-tiny_digits': 2,
    'vit-tiny_digits': 3,
    'stvit-swin_digits': 5,
    'stvit-r_digits': 5,
    'swin_digits': 6,
    'stvit-t2t_digits': 6,
    't2t-vit_digits': 7,
    'mask-rcnn_stvit-r_digits': 10,
    'mask-rcnn_swin_digits': 10,
    'stvit-swin3d_digits': 8,
    'swin3d_digits': 9,
    'stvit-t_cifar10': 5,
    'deit-t_cifar10': 6,
    'stvit-s_cifar10': 6,
    'deit-s_cifar10': 8,
}


def config_file(name: str) -> str:
    """The file of a config below the checkout: what follows the last ``_`` of its name is its folder.

    A path with a root, without ``.py``, stands for itself.
    """
    if name.startswith('/'):
        return f'{name}.py'
    return f'configs/{name.rpartition("_")[2]}/{name}.py'


@dataclass(frozen=True)
class Run:
    """One training with its test.

    Attributes:
        config: name of a config.
        seed: of ``randomness.seed``.
        options: further overrides of the config.
        epochs: in the place of the config's, where the time is limited.
    """

    config: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    epochs: int | None = None

    @property
    def trial(self) -> str:
        """The name without the seed."""
        return trial_name(self.config, self.options)

    @property
    def name(self) -> str:
        """Unique, and fit for a folder."""
        return f'{self.trial}_seed-{self.seed}'

    @property
    def overrides(self) -> dict[str, Any]:
        """What differs from the config, but for the epochs."""
        return {'randomness.seed': self.seed, **self.options}

    @property
    def command_options(self) -> dict[str, Any]:
        """All that differs from the config."""
        return self.overrides | ({'train_cfg.max_epochs': self.epochs} if self.epochs else {})

    @property
    def minutes(self) -> float:
        """As stated, see ``MINUTES``."""
        return MINUTES[self.config]


def trial_name(config: str, options: dict[str, Any]) -> str:
    """The name of a config with overrides."""
    parts = [f'{key.rpartition(".")[2]}-{option_text(value)}' for key, value in options.items()]
    return '_'.join([config, *parts]).replace('(', '').replace(')', '').replace(',', 'x')


def option_text(value: Any) -> str:
    """A value as ``--cfg-options`` reads it back."""
    return f'({",".join(map(str, value))})' if isinstance(value, (tuple, list)) else str(value)


def option_args(overrides: dict[str, Any]) -> list[str]:
    """``--cfg-options`` and its pairs, nothing without overrides."""
    return ['--cfg-options', *(f'{key}={option_text(value)}' for key, value in overrides.items())] if overrides else []


def as_typed(command: Sequence[str | Path], root: Path) -> str:
    """A command as one would type it in the checkout ``root``: ``python``, relative paths, quotes where needed."""
    words = [str(word).removeprefix(f'{root}/') for word in command]
    return shlex.join(['python', *words[1:]])


def plan(study_seeds: int = len(SEEDS), tier: str = 'quick') -> list[Run]:
    """All runs of a tier, each once: the pairs seed by seed, so that an early end leaves whole comparisons, then the
    study.

    Args:
        study_seeds: how many of ``SEEDS`` each trial of the study gets.
        tier: one of ``TIERS``; the study belongs to ``'quick'``.
    """
    if tier == 'gpu':
        # Networks of one size take equally long: side by side they end together.
        return [Run(config, seed) for pair in GPU_PAIRS for seed in SEEDS for config in pair.configs]
    runs = [Run(config, seed) for seed in SEEDS for pair in PAIRS for config in pair.configs]
    for seed in SEEDS[:study_seeds]:
        for factor in STUDY:
            runs += [Run(factor.config, seed, factor.options(label)) for label, _ in factor.values]
    return list({run.name: run for run in runs}.values())
