"""Runs the small backbones many times on inputs of many sizes, and prints how much memory the process has on the way.

``python long_runs.py infer 2000`` or ``train 500``; the sum of what tensors and libraries hold is what counts, so each
run is a process of its own.
"""

import json
import random
import sys
from pathlib import Path

import psutil
import torch

sys.path[:0] = [str(Path(__file__).parents[up]) for up in (1, 2)]  # tests and the checkout
from small_backbones import BACKBONES, build, maps  # noqa: E402

SIZES = 200
LOOKS = 10  # how often memory is looked at


def images(rng):
    """Random sizes of an image, 32 to 160 px along each side, whatever patches and windows divide."""
    return [(rng.randint(32, 160), rng.randint(32, 160)) for _ in range(SIZES)]


def inputs(name, size, batch):
    """A random image, or clip, for a backbone."""
    *frames, _, _ = BACKBONES[name][2]
    return torch.randn(batch, 3, *frames, *size)


def run(kind, count):
    """Memory of the process in bytes, after each tenth of the runs."""
    torch.manual_seed(0)
    rng = random.Random(0)
    sizes, names = images(rng), list(BACKBONES)
    models = {name: build(name).train(kind == 'train') for name in names}
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-4) for name, model in models.items()}
    seen = []
    for i in range(count):
        name = names[i % len(names)]
        x = inputs(name, rng.choice(sizes), 1 if kind == 'infer' else 2)
        if kind == 'infer':
            with torch.inference_mode():
                models[name](x)
        else:
            sum(out.square().mean() for out in maps(models[name](x))).backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
        if (i + 1) % (count // LOOKS) == 0:
            seen.append(psutil.Process().memory_info().rss)
    return seen


if __name__ == '__main__':
    torch.set_num_threads(1)
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
