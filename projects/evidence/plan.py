"""What is trained for the evidence: networks on semantic tokens, each beside its dense baseline, in three tiers."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)
MOST_SEEDS = 10
# Where each is trained, and on what.
TIERS = {
    'quick': 'small networks on digits, for two cores: a demonstration, saturated as it is',
    'cpu': 'small networks on CIFAR-10, blood cells and street scenes, for two cores',
    'gpu': 'DeiT-T and S on CIFAR-10 in bfloat16, for a GPU',
}
# The variable by which the configs of CIFAR-10 find it.
DATA_ROOT = 'CIFAR10'


@dataclass(frozen=True)
class Pair:
    """Networks on semantic tokens, or T2T-ViT, and their baseline, trained on the same data by the same schedule.

    Attributes:
        title: what is compared.
        tier: one of ``TIERS``.
        semantic: names of configs, see :func:`config_file`.
        dense: name of the baseline's.
        samples: how many are tested.
        what: they are.
        metrics: keys of the test's metrics, with their names and what makes them per cent.
        variants: overrides of the first semantic config, each of which is trained too, with the first seed.
    """

    title: str
    tier: str
    semantic: tuple[str, ...]
    dense: str
    samples: int
    what: str
    metrics: tuple[tuple[str, str, float], ...] = (('accuracy/top1', 'top-1', 1.0),)
    variants: tuple[dict[str, Any], ...] = ()

    @property
    def configs(self) -> tuple[str, ...]:
        """Of all, the dense baseline last."""
        return (*self.semantic, self.dense)

    @property
    def baseline(self) -> 'Run':
        """The dense network, seed 0."""
        return Run(self.dense, 0)

    @property
    def twins(self) -> tuple['Run', ...]:
        """Seed 0 of all that are compared, the dense baseline last."""
        return tuple(Run(config, 0) for config in self.configs)

    @property
    def study(self) -> tuple['Run', ...]:
        """Seed 0 of the variants."""
        return tuple(Run(self.semantic[0], 0, options) for options in self.variants)

    @property
    def trials(self) -> tuple['Run', ...]:
        """Seed 0 of all that are trained, the dense baseline last."""
        return (*self.twins[:-1], *self.study, self.baseline)


_PHOTOGRAPHS = (10_000, 'test images of CIFAR-10')
PAIRS = (
    Pair('STViT-T and DeiT-T', 'gpu', ('stvit-t_cifar10',), 'deit-t_cifar10', *_PHOTOGRAPHS),
    Pair('STViT-S and DeiT-S', 'gpu', ('stvit-s_cifar10',), 'deit-s_cifar10', *_PHOTOGRAPHS),
    Pair(
        'STViT and ViT',
        'cpu',
        ('stvit-tiny_cifar10',),
        'vit-tiny_cifar10',
        *_PHOTOGRAPHS,
        variants=(
            *({'model.backbone.semantic_grid': (n, n)} for n in (2, 3, 6)),
            *({'model.backbone.stgm_layer': n} for n in (0, 2)),
        ),
    ),
    Pair('STViT-T2T and T2T-ViT', 'cpu', ('stvit-t2t_cifar10',), 't2t-vit_cifar10', *_PHOTOGRAPHS),
    Pair('T2T-ViT and ViT', 'cpu', ('t2t-vit_cifar10',), 'vit-patch_cifar10', *_PHOTOGRAPHS),
    Pair(
        'STViTSwin, STViT-R and Swin',
        'cpu',
        ('stvit-swin_cifar10', 'stvit-r_cifar10'),
        'swin_cifar10',
        *_PHOTOGRAPHS,
    ),
    Pair(
        'STViT-R and Swin in Faster R-CNN',
        'cpu',
        ('faster-rcnn_stvit-r_bccd',),
        'faster-rcnn_swin_bccd',
        72,
        'photographs of blood cells',
        (('coco/bbox_mAP', 'box AP', 100.0),),
    ),
    Pair(
        'STViT-R and Swin in UPerNet',
        'cpu',
        ('upernet_stvit-r_camvid',),
        'upernet_swin_camvid',
        233,
        'street scenes of CamVid',
        (('mIoU', 'mIoU', 1.0),),
    ),
    Pair('STViT and ViT', 'quick', ('stvit-tiny_digits',), 'vit-tiny_digits', 450, 'digits at 32 px'),
    Pair(
        'STViTSwin, STViT-R and Swin',
        'quick',
        ('stvit-swin_digits', 'stvit-r_digits'),
        'swin_digits',
        450,
        'digits at 96 px',
    ),
    Pair('STViT-T2T and T2T-ViT', 'quick', ('stvit-t2t_digits',), 't2t-vit_digits', 450, 'digits at 128 px'),
    Pair(
        'STViT-R and Swin in Mask R-CNN',
        'quick',
        ('mask-rcnn_stvit-r_digits',),
        'mask-rcnn_swin_digits',
        200,
        'scenes of digits',
        (('coco/bbox_mAP', 'box AP', 100.0), ('coco/segm_mAP', 'mask AP', 100.0)),
    ),
    Pair(
        'STViT 3D and Video Swin',
        'quick',
        ('stvit-swin3d_digits',),
        'swin3d_digits',
        400,
        'clips of moving digits',
        (('acc/top1', 'top-1', 100.0),),
    ),
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
    'stvit-tiny_cifar10': 28,
    'vit-tiny_cifar10': 36,
    'stvit-t2t_cifar10': 26,
    't2t-vit_cifar10': 31,
    'vit-patch_cifar10': 16,
    'stvit-swin_cifar10': 20,
    'stvit-r_cifar10': 21,
    'swin_cifar10': 23,
    'faster-rcnn_stvit-r_bccd': 10,
    'faster-rcnn_swin_bccd': 12,
    'upernet_stvit-r_camvid': 22,
    'upernet_swin_camvid': 24,
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
        parts = [f'{key.rpartition(".")[2]}-{option_text(value)}' for key, value in self.options.items()]
        return '_'.join([self.config, *parts]).replace('(', '').replace(')', '').replace(',', 'x')

    @property
    def name(self) -> str:
        """Unique, and fit for a folder."""
        return f'{self.trial}_seed-{self.seed}'

    @property
    def minutes(self) -> float:
        """What it takes, for the first estimate."""
        return MINUTES[self.config]

    @property
    def overrides(self) -> dict[str, Any]:
        """What differs from the config, but for the epochs."""
        return {'randomness.seed': self.seed, **self.options}

    @property
    def command_options(self) -> dict[str, Any]:
        """All that differs from the config."""
        return self.overrides | ({'train_cfg.max_epochs': self.epochs} if self.epochs else {})


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


def plan(tier: str | None = None, seeds: int = len(SEEDS)) -> list[Run]:
    """All runs of a tier (``None``: of all), each once, seed by seed, so that an early end leaves whole comparisons."""
    pairs = [pair for pair in PAIRS if tier in (None, pair.tier)]
    twins = [replace(run, seed=seed) for seed in range(seeds) for pair in pairs for run in pair.twins]
    return list(dict.fromkeys([*twins, *(run for pair in pairs for run in pair.study)]))
