"""Kill a training again and again, and take it up again each time; started by test_training_survives.py.

One process imports everything and forks each training, which saves the seconds that imports take. A training is killed
at a random moment, at a random step of writing checkpoints, or with a checkpoint half-written, in turn; where it ends
before, it begins anew in another work dir. Prints a line of JSON for each config with what was counted. The configs
are of mmpretrain, mmdet and mmaction2, in this order.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

import torch

from mmstvit.cli import train as train_cli
from mmstvit.engine.stops import newest_checkpoint
from mmstvit.engine.whole_checkpoints import fault_of

KINDS = ('moments', 'writes', 'halves')


class Doom:
    """An audit hook that counts the steps of writing checkpoints, and kills its process before one of them.

    Steps are: opening a file to write it, giving it its name, removing it. For a half-written file only those before
    a checkpoint gets its name count, and it loses a part of its end first.

    Args:
        work_dir: of the training.
        step: which step, from 1; ``None`` for none.
        part: that is left of the file, below 1, or ``None``.
    """

    def __init__(self, work_dir, step=None, part=None):
        self.work_dir, self.step, self.part, self.steps = str(work_dir), step, part, []

    def __call__(self, event, args):
        if event not in ('open', 'os.rename', 'os.remove') or not isinstance(args[0], (str, Path)):
            return
        path = str(args[0])
        if not path.startswith(self.work_dir) or not path.endswith(('.pth', 'last_checkpoint')):
            return
        if event == 'open' and 'w' not in (args[1] or ''):
            return
        step = 'name' if event == 'os.rename' and path.endswith('.pth') else event
        if self.part is not None and step != 'name':
            return
        self.steps.append(step)
        if len(self.steps) == self.step:
            if self.part is not None:
                os.truncate(path, int(self.part * os.path.getsize(path)))
            os.kill(os.getpid(), signal.SIGKILL)


def start(config, work_dir, doom):
    """Fork a training; its output goes to ``out.txt`` in its work dir, the steps to ``steps.json``."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work_dir.mkdir(exist_ok=True)
        with open(work_dir / 'out.txt', 'a') as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.addaudithook(doom)
        train_cli.main([str(config), '--work-dir', str(work_dir), '--resume'])
        (work_dir / 'steps.json').write_text(json.dumps(doom.steps))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def end(pid, kill_after=None):
    """Wait for a training, kill it after some seconds; whether it was killed."""
    deadline = None if kill_after is None else time.monotonic() + kill_after
    done = 0
    while not done:
        done, status = os.waitpid(pid, os.WNOHANG if deadline else 0)
        if not done and time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = None
        elif not done:
            time.sleep(0.002)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f'a training ended with {code}')
    return code != 0


def check_folder(work_dir):
    """What must be true whenever a training was killed; the number of half-written files left under other names."""
    pointer = work_dir / 'last_checkpoint'
    if pointer.exists():
        fault = fault_of(Path(pointer.read_text()))
        assert fault is None, f'last_checkpoint names {pointer.read_text()!r}: {fault}'
    for path in work_dir.glob('[!.]*.pth'):
        assert fault_of(path) is None, f'{path} is there and not whole'
    return sum(fault_of(path) is not None for path in work_dir.glob('.*.pth'))


def tensors(value, place=''):
    """All tensors in weights and state of the optimizer, with their places."""
    if isinstance(value, torch.Tensor):
        return {place: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {name: tensor for key, inner in items for name, tensor in tensors(inner, f'{place}/{key}').items()}


def result(work_dir):
    path = Path((work_dir / 'last_checkpoint').read_text())
    checkpoint = torch.load(path, weights_only=False)
    return path.name, tensors({key: checkpoint[key] for key in ('state_dict', 'optimizer')})


def same(one, other):
    return (
        one[0] == other[0]
        and one[1].keys() == other[1].keys()
        and all(torch.equal(value, other[1][name]) for name, value in one[1].items())
    )


def kill_and_resume(config, folder, kills, rng):
    """Kill a training so often, resume it each time, and count."""
    cfg = train_cli.load_config(train_cli.parse_args([str(config)]))
    began = time.monotonic()
    end(start(config, folder / 'whole', Doom(folder / 'whole')))
    seconds, steps = time.monotonic() - began, json.loads((folder / 'whole' / 'steps.json').read_text())
    most = dict(writes=len(steps), halves=steps.count('name'))
    whole = result(folder / 'whole')
    counts = dict(moments=0, writes=0, halves=0, half_written=0, resumed=0, finished=0, equal=0)
    work_dir = folder / 'killed_0'
    while (killed := sum(counts[kind] for kind in KINDS)) < kills or counts['finished'] == 0:
        kind = min(KINDS, key=counts.get) if killed < kills else None
        doom = Doom(work_dir)
        if kind in most:
            doom = Doom(work_dir, rng.randint(1, most[kind]), rng.random() if kind == 'halves' else None)
        cfg.work_dir = str(work_dir)
        counts['resumed'] += newest_checkpoint(cfg) is not None
        pid = start(config, work_dir, doom)
        if end(pid, rng.uniform(0, seconds) if kind == 'moments' else None):
            counts[kind] += 1
            counts['half_written'] += check_folder(work_dir)
        else:
            counts['finished'] += 1
            counts['equal'] += same(result(work_dir), whole)
            assert not list(work_dir.glob('.*')), 'what was not finished is still there'
            work_dir = folder / f'killed_{counts["finished"]}'
    return counts


def main(folder, kills, seed, *configs):
    for toolbox in ('mmpretrain', 'mmdet', 'mmaction')[: len(configs)]:
        import_module(f'{toolbox}.utils').register_all_modules(init_default_scope=False)
    for config in configs:
        place = Path(folder) / Path(config).stem
        place.mkdir()
        whole = place / 'config.py'  # a config of one file is read faster
        train_cli.load_config(train_cli.parse_args([config])).dump(whole)
        print(json.dumps(kill_and_resume(whole, place, int(kills), random.Random(int(seed)))), flush=True)
