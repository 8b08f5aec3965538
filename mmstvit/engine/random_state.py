"""The random numbers of a training as a part of its state.

A state is made of tensors, tuples and numbers alone, so that a checkpoint with it can be read without running code.
"""

import multiprocessing
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader

from .stopping import obey_parent_alone


def random_state() -> dict:
    """Where the generators of Python, NumPy, PyTorch and, where it is used, of this process's GPU are."""
    of_numpy: Any = np.random.get_state()
    kind, keys, *rest = of_numpy
    state = dict(
        python=random.getstate(),
        numpy=(kind, torch.from_numpy(keys.astype(np.int64)), *rest),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Put the generators where :func:`random_state` found them."""
    random.setstate(state['python'])
    kind, keys, *rest = state['numpy']
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def seed_dataloader(dataloader: DataLoader, seed: int, stream: int) -> None:
    """Make what a dataloader draws in an epoch depend on the seed and the epoch, and on nothing that was before.

    mmengine seeds the workers of each epoch alike, or once where they stay for all epochs: the first repeats the
    random numbers of an epoch in the next one, the second cannot be resumed. Workers that stay are started anew.

    Args:
        dataloader: that of training.
        seed: of the run.
        stream: the epoch, or where there are none the iteration at which the training began.
    """
    # Else each new iterator would draw a number from the generator that everything else uses.
    dataloader.generator = torch.Generator().manual_seed(seed + stream)
    if dataloader.num_workers == 0:
        return
    _set_worker_init(dataloader, (seed, stream, get_rank()))
    if multiprocessing.get_start_method() == 'fork':  # in other ways a start takes seconds
        end_workers(dataloader)


def end_workers(dataloader: DataLoader) -> None:
    """End the workers of a dataloader that stay from epoch to epoch; the next epoch starts new ones."""
    dataloader._iterator = None


def shield_workers(dataloader: DataLoader) -> None:
    """Let workers of validation outlive signals to the process group, so that the training can still save its state."""
    _set_worker_init(dataloader, None)


def _set_worker_init(dataloader: DataLoader, entropy: tuple[int, ...] | None) -> None:
    init = dataloader.worker_init_fn
    if isinstance(init, partial) and init.func is _init_worker:
        init = init.keywords['init']
    dataloader.worker_init_fn = partial(_init_worker, init=init, entropy=entropy)


def _init_worker(worker_id: int, init: Callable[[int], None] | None, entropy: tuple[int, ...] | None) -> None:
    obey_parent_alone()
    if init is not None:
        init(worker_id)
    if entropy is None:
        return
    seed = int(np.random.SeedSequence((*entropy, worker_id)).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
