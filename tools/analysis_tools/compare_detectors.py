"""Put trained detectors side by side: AP, multiply-adds of the backbone, images per second.

    python tools/analysis_tools/compare_detectors.py CONFIG CHECKPOINT CONFIG CHECKPOINT ...

Each is tested on the data set of its config by tools/test.py. Times are medians of runs in turn on the same images, so
that what else the machine does meets all. "Its" is the backbone's; the last column is relative to the last detector.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmstvit import get_model
from mmstvit.cli.common import find_config
from mmstvit.cli.errors import UsageError, one_line_errors

TEST = Path(__file__).resolve().parents[1] / 'test.py'


def tested(config: Path, checkpoint: str) -> dict[str, float]:
    """The metrics that tools/test.py gives."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, 'metrics.json')
        command = [sys.executable, str(TEST), str(config), checkpoint, '--work-dir', folder, '--out', str(out)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise UsageError(result.stderr.strip().splitlines()[-1].removeprefix('error: '))
        return json.loads(out.read_text())


def multiply_adds(backbone: torch.nn.Module, image: torch.Tensor) -> float:
    """Of one image, attention included: the fused kernels are not counted, so it must be the plain one."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        backbone(image[:1])
    return counter.get_total_flops() / 2


def first_batch(config: Path) -> dict:
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return next(iter(Runner.build_dataloader(cfg.test_dataloader)))


def seconds(runs: list, repeats: int) -> list[float]:
    """The median time of each, run in turn after one round that is not counted."""
    times = [[] for _ in runs]
    for i in range(repeats + 1):
        for run, taken in zip(runs, times):
            start = time.perf_counter()
            run()
            if i:
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('pairs', nargs='+', metavar='CONFIG CHECKPOINT', help='the last pair is the baseline')
    parser.add_argument('--repeats', type=int, default=10, help='timed runs of each, default %(default)s')
    with one_line_errors():
        args = parser.parse_args()
        if len(args.pairs) % 2 or args.repeats < 1:
            raise UsageError('give pairs of a config and its checkpoint, and at least one repeat')
        configs = [find_config(path) for path in args.pairs[::2]]
        metrics = []
        for config, checkpoint in zip(configs, args.pairs[1::2]):
            print(f'testing {config.stem}', file=sys.stderr, flush=True)
            metrics.append(tested(config, checkpoint))
        models = [get_model(config, checkpoint) for config, checkpoint in zip(configs, args.pairs[1::2])]
        print('timing', file=sys.stderr, flush=True)
        batch = first_batch(configs[-1])
        images = models[-1].data_preprocessor(batch)['inputs']
        with torch.no_grad():
            backbones = seconds([lambda m=m: m.backbone(images) for m in models], args.repeats)
            whole = seconds([lambda m=m: m.test_step(batch) for m in models], args.repeats)
        size = ' x '.join(map(str, images.shape[2:]))
        print(f'Images of {size}, batch {len(images)}, {torch.get_num_threads()} threads, {images.device.type}.\n')
        print(
            '| detector | box AP | mask AP | backbone multiply-adds | backbone img/s | whole img/s | backbone speed |'
        )
        print('|---|---|---|---|---|---|---|')
        for config, model, metric, front, all_ in zip(configs, models, metrics, backbones, whole):
            ap = [f'{metric[k]:.3f}' if k in metric else '' for k in ('coco/bbox_mAP', 'coco/segm_mAP')]
            cost, n = multiply_adds(model.backbone, images), len(images)
            print(
                f'| {config.stem} | {ap[0]} | {ap[1]} | {cost / 1e6:.1f} M | {n / front:.1f} | {n / all_:.1f} | '
                f'{backbones[-1] / front:.2f} x |'
            )


if __name__ == '__main__':
    main()
