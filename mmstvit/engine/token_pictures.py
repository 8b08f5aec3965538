"""Pictures of what semantic tokens stand for, drawn while a model trains."""

from collections.abc import Sequence

import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS
from ..visualization.recording import Recorder, recording
from .random_state import random_state, set_random_state


@HOOKS.register_module()
class TokenPicturesHook(Hook):
    """After a validation, a contact sheet of semantic tokens goes to the backends of mmengine's Visualizer.

    Files below the work dir, TensorBoard and whatever else ``vis_backends`` of the config names get an image
    ``semantic_tokens`` with the number of the iteration::

        custom_hooks = [dict(type='mmstvit.TokenPicturesHook', images=(0, 5, 9))]

    Samples go through the network once more, as it was validated (with averaged weights, where an ``EMAHook`` has
    them); training is what it is without.

    Args:
        interval: after every n-th validation, beginning with the first.
        images: which samples of the validation data set.
        name: of the image in the backends.

    Raises:
        ValueError: ``interval`` or ``images`` ask for nothing, or the data set has no such sample.
    """

    # Before an EMAHook puts the weights of training back.
    priority = 'ABOVE_NORMAL'

    def __init__(
        self, interval: int = 1, images: Sequence[int] = (0, 1, 2, 3, 4, 5), name: str = 'semantic_tokens'
    ) -> None:
        if interval < 1 or not images:
            raise ValueError(f'interval={interval} and images={tuple(images)}: it takes at least 1 and one image')
        self.interval, self.images, self.name = interval, tuple(images), name
        self._validations = 0

    def before_train(self, runner: Runner) -> None:
        """Refuse a model without semantic tokens, and samples that are not there, before anything is trained."""
        Recorder(runner.model).remove()
        if runner.val_loop is None:
            raise ValueError(f'{type(self).__name__} draws after validations, and there are none')
        number = len(runner.val_loop.dataloader.dataset)
        missing = [index for index in self.images if not 0 <= index < number]
        if missing:
            raise ValueError(f'images={self.images}: the validation data set has {number} samples, no {missing[0]}')

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Draw; where weights are sharded, all processes take part in the forward pass."""
        self._validations += 1
        if (self._validations - 1) % self.interval:
            return
        from ..visualization.pictures import sheet  # matplotlib takes its time

        dataset, all_maps, state = runner.val_loop.dataloader.dataset, [], random_state()
        for index in self.images:
            with recording(runner.model) as recorder, torch.no_grad():
                runner.model.val_step(pseudo_collate([dataset[index]]))
            all_maps.append(recorder.maps())
        set_random_state(state)
        if is_main_process():
            picture = sheet(all_maps, [f'sample {index}' for index in self.images])
            runner.visualizer.add_image(self.name, picture, runner.iter)
