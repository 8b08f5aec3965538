"""Counts and times the networks of the evidence: those that were trained, and those of full size beside their
baselines.

Each figure is kept as JSON and taken again only where a config or the way of measuring has changed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmstvit.apis.baseline import dense_baseline
from mmstvit.apis.models import chosen_device
from mmstvit.errors import one_line
from mmstvit.measure.complexity import count
from mmstvit.measure.figures import figures
from mmstvit.measure.networks import load_network, quieten
from mmstvit.measure.speed import benchmark
from mmstvit.measure.timing import Timing
from mmstvit.paths import package_data
from mmstvit.registry import MODELS

from .plan import PAIRS, Run
from .store import config_path, fingerprint, read_json, write_json

# Inputs of a run, rounds.
TIMING = (16, 11)
DETECTOR_SIZE = (800, 1216)


@dataclass(frozen=True)
class FullSize:
    """A network of full size and the same without semantic tokens; neither is trained.

    Attributes:
        name: of the semantic one.
        config: below ``configs/``.
        size: height and width of the image.
        timed: whether the two are timed too.
    """

    name: str
    config: str
    size: tuple[int, int] = (224, 224)
    timed: bool = True


def _full_size() -> tuple[FullSize, ...]:
    detectors = {
        'T': 'mask-rcnn_stvit-r-swin-t_fpn_1x_coco',
        'S': 'mask-rcnn_stvit-r-swin-s_fpn_1x_coco',
        'B': 'cascade-mask-rcnn_stvit-r-swin-b_fpn_ms-480-800-giou-4conv1f-3x_coco',
    }
    return (
        *(FullSize(f'STViT-{s}', f'stvit/stvit-{s.lower()}_8xb128_in1k.py') for s in detectors),
        *(FullSize(f'STViTSwin-{s}', f'stvit/stvit-swin-{s.lower()}_16xb64_in1k.py') for s in detectors),
        *(FullSize(f'STViT-R-{s}', f'stvit_r/{detectors[s]}.py', DETECTOR_SIZE, timed=False) for s in detectors),
    )


FULL_SIZE = _full_size()

# Networks whose parameters and multiply-adds others have published; they are counted whole at 224 px.
PUBLISHED = {
    'STViT-R-Swin-S': 'stvit_r/stvit-r-swin-s_8xb128_in1k_published.py',
    'STViT-R-Swin-B': 'stvit_r/stvit-r-swin-b_8xb128_in1k_published.py',
    **{f'T2T-ViT-{n}': f't2t_vit/t2t-vit-{n}_8xb64_in1k.py' for n in (7, 10, 12, 14, 19, 24)},
}


class Measurements:
    """All figures, taken one by one; :meth:`take` returns what went wrong.

    Args:
        root: folder of everything that is kept.
        say: takes a line of progress.
        again: take figures anew that are there.
        timing: whether speeds are measured; else those that are there are used.
    """

    def __init__(self, root: Path, say: Callable[[str], None], again: bool = False, timing: bool = True) -> None:
        self.root, self.say, self.again, self.timing = root, say, again, timing
        self.failures: dict[str, str] = {}

    def take(self) -> tuple[dict[str, dict], dict[str, str]]:
        """The figures by name, and what could not be measured."""
        entries = {}
        for name, key, timed, work in self._all():
            entry = read_json(self.root / 'measured' / f'{name}.json')
            fits = entry is not None and entry.get('key') == key
            if timed and not self.timing:
                if fits:
                    entries[name] = entry
                continue
            if not fits or self.again:
                self.say(f'measuring {name}')
                try:
                    entry = {'name': name, 'key': key, **work()}
                except (Exception, SystemExit) as error:  # whatever it was, the others go on
                    self.failures[name] = one_line(error) if isinstance(error, Exception) else 'see the line above'
                    self.say(f'FAILED measuring {name}: {self.failures[name]}')
                    continue
                write_json(self.root / 'measured' / f'{name}.json', entry)
            entries[name] = entry
        return entries, self.failures

    def _all(self) -> Iterator[tuple[str, str, bool, Callable[[], dict]]]:
        """(name, hash of what it depends on, whether it is a speed, what measures it) of each figure."""
        for pair in PAIRS:
            every = {run.trial: self._config(config_path(run.config), run.options) for run in pair.trials}
            cfgs = {name: cfg for name, cfg in every.items() if cfg}
            for name, cfg in cfgs.items():
                key = fingerprint(cfg)
                yield f'cost_{name}', key, False, lambda c=cfg, n=name: self._cost(self._dump(c, n))
            # Those of a GPU would be timed on what they are not made for.
            if len(cfgs) == len(pair.trials) and pair.tier != 'gpu':
                key = fingerprint([[fingerprint(cfg) for cfg in cfgs.values()], TIMING])
                yield (
                    f'speed_{pair.dense}',
                    key,
                    True,
                    lambda c=cfgs: self._speed([self._dump(cfg, name) for name, cfg in c.items()], *TIMING),
                )
        for name, config in PUBLISHED.items():
            path = package_data() / 'configs' / config
            if cfg := self._config(path, {}):
                yield f'published_{name}', fingerprint(cfg), False, lambda p=path: self._cost(str(p), (224, 224))
        for pair in FULL_SIZE:
            yield from self._full_size(pair)

    def _config(self, path: Path, options: dict[str, Any]) -> Config | None:
        """A config, or ``None`` and a failure noted."""
        try:
            cfg = Config.fromfile(path)
            cfg.merge_from_dict(dict(options))
            return cfg
        except Exception as error:  # a config is a program: it may raise anything
            self.failures[path.stem] = one_line(error)
            return None

    def _full_size(self, pair: FullSize) -> Iterator[tuple[str, str, bool, Callable[[], dict]]]:
        path = package_data() / 'configs' / pair.config
        own = self._config(path, {})
        if own is None:
            return
        dense = dense_baseline(own)
        key = fingerprint([fingerprint(own), fingerprint(dense), pair.size])
        name = pair.name

        def reduction() -> dict:
            costs = [self._backbone(cfg, pair.size) for cfg in (own, dense)]
            return dict(size=list(pair.size), semantic=costs[0], dense=costs[1])

        yield f'full_{name}', key, False, reduction
        if pair.timed:
            yield (
                f'speed_{name}',
                fingerprint([*(cfg.to_dict()['model'] for cfg in (own, dense)), pair.size, TIMING]),
                True,
                lambda: self._speed([self._dump(own, name), self._dump(dense, f'{name}_dense')], *TIMING),
            )

    def _dump(self, cfg: Config, name: str) -> str:
        path = self.root / 'configs' / f'{name}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(path)
        return str(path)

    @staticmethod
    def _cost(spec: str, shape: Sequence[int] | None = None) -> dict:
        counts = figures(load_network(spec), shape)
        return dict(
            multiply_adds=counts.whole.multiply_adds,
            parameters=counts.whole.parameters,
            backbone=counts.backbone,
            shape=list(counts.shape),
        )

    @staticmethod
    def _backbone(cfg: Config, size: Sequence[int]) -> int:
        """Multiply-adds of the backbone alone."""
        settings = {key: value for key, value in cfg.model.backbone.items() if key != 'init_cfg'}
        return count(MODELS.build(settings).eval(), torch.zeros(1, 3, *size)).multiply_adds

    @staticmethod
    def _speed(specs: Sequence[str | Path], batch: int, rounds: int) -> dict:
        """Networks timed side by side, the last of them the baseline."""
        quieten()
        networks = [load_network(str(spec)) for spec in specs]
        timing = Timing(chosen_device(None), part=None, rounds=rounds)
        return benchmark(networks, timing, baseline=len(networks) - 1, batch_sizes=[batch])


def cost_of(measured: dict[str, dict], run: Run) -> dict | None:
    """The multiply-adds and parameters of a trained config."""
    return measured.get(f'cost_{run.trial}')


def speed_of(measured: dict[str, dict], key: str, network: str) -> dict | None:
    """The speed of a network in a side by side timing."""
    rows = (measured.get(f'speed_{key}') or {}).get('results', ())
    return next((row for row in rows if row['network'] == network), None)
