"""mmengine's runners with checks of what they read: data sets, images, videos and checkpoints.

``build_runner`` writes them into a config, so that a dumped config runs with the same checks in any program. Beside
mmengine's keys they read::

    data_checks = dict(
        trust_data=False,  # whether entries of data sets may lead out of their folders, and code in them may run
        skip_broken=False)  # whether broken clips are skipped in training
"""

import os
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from mmengine._strategy import BaseStrategy
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop, find_latest_checkpoint
from mmengine.runner import FlexibleRunner as _FlexibleRunner
from mmengine.runner import Runner as _Runner
from torch import nn
from torch.utils.data import DataLoader

from ..compat.toolbox_pickles import start_worker
from ..converters.published import unwrap
from ..errors import UsageError, one_line
from ..io.checkpoints import CheckpointError
from ..registry import RUNNERS, entries_of
from ..visualization.fonts import choose_fonts
from .checks import check_batches, check_classes, check_schedules, check_trainable
from .class_names import check_checkpoint_names, check_same_names
from .coco_file import forget_coco
from .coco_metric import check_evaluation, checked_metrics
from .data_report import counts_of, describe_split, names_of
from .datasets import build_dataset, clear_data_errors, configured
from .folders import training_classes
from .loading import check_content, must_fit, skip_pretrained
from .schedules import base_settings, check_same_optimizer, follow_config, whole_batch
from .terminal import parameter_table, shorten
from .videos import clear_crashes

if TYPE_CHECKING:
    from mmengine.runner import Runner as _Mixed  # into one such it is mixed
else:
    _Mixed = object


class _Checks(_Mixed):
    """What both runners do beside mmengine's; faults of files raise ``UsageError`` in one line."""

    _purpose = 'train'
    _loading: Any = None  # what is known of a checkpoint while it is loaded

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if 'auto_scale_lr' in kwargs:
            kwargs['auto_scale_lr'] = whole_batch(kwargs['auto_scale_lr'], kwargs.get('optim_wrapper'))
        super().__init__(*args, **kwargs)

    def train(self) -> Any:
        """Train; where it begins from a checkpoint, the one of an ``init_cfg`` is not read."""
        start = self._load_from or (find_latest_checkpoint(self.work_dir) if self._resume else None)
        if start:
            skip_pretrained(self.model, start)
        return self._run('train', super().train)

    def val(self) -> dict:
        """Validate once."""
        return self._run('test', super().val)

    def test(self) -> dict:
        """Test."""
        return self._run('test', super().test)

    def _run(self, purpose: str, run: Callable[[], Any]) -> Any:
        self._purpose = purpose
        try:
            with clear_data_errors(self._checks.get('trust_data', False)), clear_crashes(self):
                return run()
        except CheckpointError as error:  # of an init_cfg; others are caught where they are loaded
            raise UsageError(f'cannot read the checkpoint {one_line(error)}') from error

    @property
    def _checks(self) -> dict:
        return self.cfg.get('data_checks') or {}

    def build_dataloader(
        self, dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a dataloader whose data sets are checked; a static method in mmengine."""
        if isinstance(dataloader, DataLoader) or not isinstance(dataloader['dataset'], dict):
            return super().build_dataloader(dataloader, seed, diff_rank_seed)
        place = dict(mmpretrain='head', mmaction='cls_head', mmseg='decode_head').get(self.cfg.get('default_scope'))
        head = (entries_of(self.cfg.model.get(place)) or [{}])[-1]  # of several decode heads the last one predicts
        trust = self._checks.get('trust_data', False)
        checked = dict(
            type=build_dataset,
            dataset=dataloader['dataset'],
            trust_data=trust,
            num_classes=head.get('num_classes'),
            ignore_index=head.get('ignore_index', 255),
            skip_broken=self._checks.get('skip_broken', False) and dataloader is self._train_dataloader,
            classes=self._training_classes,
        )
        loader = super().build_dataloader(dict(dataloader, dataset=checked), seed, diff_rank_seed)
        check_batches(loader)
        loader.worker_init_fn = partial(start_worker, init=loader.worker_init_fn, trust_data=trust)
        return loader

    def build_evaluator(self, evaluator: Any) -> Any:
        """Build an evaluator that reads annotation files as the data sets do."""
        return super().build_evaluator(checked_metrics(evaluator))

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """Build the visualizer, which draws names of classes in any script."""
        return choose_fonts(super().build_visualizer(visualizer))

    def build_val_loop(self, loop: Any) -> Any:
        """Build the loop of validation, which must score what its data set holds."""
        return check_evaluation(super().build_val_loop(loop), 'val_evaluator')

    def build_test_loop(self, loop: Any) -> Any:
        """Build the loop of tests, which must score what its data set holds."""
        return check_evaluation(super().build_test_loop(loop), 'test_evaluator')

    @cached_property
    def _training_classes(self) -> tuple[str, ...] | None:
        """The names by which data sets of folders are numbered."""
        return training_classes([part for _, part in configured(self.cfg, 'train_dataloader')])

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the loop, into which the schedule must fit, for a model that can learn."""
        if isinstance(self.model, nn.Module):  # a strategy builds it later
            check_trainable(self.model)
        built = super().build_train_loop(loop)
        check_schedules(self.cfg.get('param_scheduler'), built.max_epochs, built.max_iters)
        return built

    def load_or_resume(self) -> None:
        """Load the checkpoint of the config, which must fit the model, after a check of what was built."""
        self.check_built(self._purpose)
        self._report()
        forget_coco()
        if self._has_loaded or not (self._load_from or self._resume):
            return
        with must_fit(self._plain_model, self._load_from or self.work_dir, self._purpose) as self._loading:
            super().load_or_resume()
        self._loading = None

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks; before those that get a checkpoint, look at what is in it."""
        if fn_name == 'after_load_checkpoint' and self._loading is not None:
            self._check_checkpoint(kwargs['checkpoint'])
        super().call_hook(fn_name, **kwargs)

    def _check_checkpoint(self, checkpoint: dict) -> None:
        filename = self._load_from or self.work_dir
        check_content(checkpoint, filename, self._resume)
        self._loading['read'] = True
        training = self._purpose == 'train'
        check_checkpoint_names(
            checkpoint.get('meta') or {}, self.loops[0].dataloader.dataset, filename, training and not self._resume
        )
        if training and self._resume:
            check_same_optimizer(checkpoint, self.cfg, filename)
        elif training:
            # Its average is of another training, and may have other classes: a new one starts from the weights.
            checkpoint.pop('ema_state_dict', None)

    @property
    def _plain_model(self) -> nn.Module:
        """The model without wrappers; where its weights are sharded, the one by way of which they are loaded."""
        plain = getattr(getattr(self, 'strategy', None), 'plain', None)
        return unwrap(self.model) if plain is None else plain

    def check_built(self, purpose: str) -> None:
        """Check what was built: model and data of a ``'train'`` or ``'test'`` fit each other."""
        self._purpose = purpose
        if purpose == 'train' and len(self.loops) > 1:
            check_same_names(*(loop.dataloader.dataset for loop in self.loops))
        check_classes(self._plain_model, self.loops, purpose == 'train')

    def _report(self) -> None:
        """Log what will be trained, on what: a line for each data set and the groups of parameters."""
        if self.logger.log_file:
            self.logger.info(f'config, environment and hooks: {os.path.relpath(self.logger.log_file)}')
        names: list[str] = []
        for loop in self.loops:
            dataset = loop.dataloader.dataset
            counts = counts_of(dataset)
            names = names or names_of([counts], dataset)
            kind = 'training' if loop is self._train_loop else 'validation' if loop is self._val_loop else 'test'
            self.logger.info(f'{kind}: {describe_split(counts, names)}')
        if self._purpose == 'train':
            self.logger.info(f'parameters by group:\n{parameter_table(self.optim_wrapper)}')

    @property
    def loops(self) -> list[BaseLoop]:
        """What runs: training and validation, or one of validation and test."""
        loops = (self._test_loop, self._val_loop) if self._purpose == 'test' else (self._train_loop, self._val_loop)
        # Loops are configs until they are run.
        return [loop for loop in loops if isinstance(loop, BaseLoop)]

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume, with the settings of the optimizer and the schedule of the config."""
        built = base_settings(self.optim_wrapper)
        super().resume(filename, *args, **kwargs)
        follow_config(self, built, filename)


@RUNNERS.register_module()
class Runner(_Checks, _Runner):
    """mmengine's ``Runner`` with checks of files.

    ``compile=dict(target='backbone')`` in a config compiles the backbone alone, which takes tensors: the whole forward,
    which ``compile=True`` stands for, takes the data samples too, and its graph grows with the batch.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger, whose log file gets everything and the terminal what fits on a screen."""
        return shorten(super().build_logger(*args, **kwargs))

    def _maybe_compile(self, target: str) -> None:
        setting = self.cfg.get('compile')
        if isinstance(setting, dict) and setting.get('target') == 'backbone':
            unwrap(self.model).get_submodule('backbone').compile(
                **{key: value for key, value in setting.items() if key != 'target'}
            )
            return
        # mmengine would compile the whole step, where torch.compile fails on the optimizer's groups.
        super()._maybe_compile('forward')


@RUNNERS.register_module()
class FlexibleRunner(_Checks, _FlexibleRunner):
    """mmengine's ``FlexibleRunner``, for a ``strategy``, with checks of files."""

    def __init__(self, *args: Any, cfg: ConfigDict | None = None, **kwargs: Any) -> None:
        setting = (cfg or {}).get('compile')
        if setting:
            # mmengine does not hand this setting on from a config. The forward, as without a strategy.
            kwargs['compile'] = dict(target='forward', **({} if setting is True else setting))
        super().__init__(*args, cfg=cfg, **kwargs)

    def build_strategy(self, *args: Any, **kwargs: Any) -> BaseStrategy:
        """Build the strategy and its logger, whose log file gets everything and the terminal what fits on a screen."""
        strategy = super().build_strategy(*args, **kwargs)
        shorten(strategy.logger)
        return strategy
