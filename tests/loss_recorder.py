"""A hook for training configs of tests; ``custom_imports`` of a config finds it where this folder is on the path."""

import json
from pathlib import Path

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class LossRecorder(Hook):
    """Writes the loss of each iteration as the mean over the processes; mmengine logs that of the first alone."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = torch.as_tensor(outputs['loss'], dtype=torch.float64).detach().clone()
        all_reduce(loss, 'mean')
        if is_main_process():
            with open(Path(runner.work_dir) / 'losses.txt', 'a') as file:
                file.write(json.dumps(loss.item()) + '\n')


def read_losses(work_dir):
    """The losses that were recorded in a work dir, in order."""
    return [json.loads(line) for line in (Path(work_dir) / 'losses.txt').read_text().splitlines()]
