"""Images in the commands: what is wrong in an annotation file or a picture is said in one line with the file's name.

Annotation files of all three toolboxes are read without running what is in them.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose

from ..compat.toolbox_pickles import DataError, plain_data
from ..errors import UsageError, one_line
from ..io.image_check import ImageError
from ..io.image_transforms import guard_images
from ..io.roots import roots_of
from ..io.videos import VideoError


@contextlib.contextmanager
def clear_image_errors(cfg: Config, trust_data: bool = False) -> Iterator[None]:
    """While it is open, data sets are built with pipelines that look at image files before they decode them.

    A fault in a picture or in a list of them raises :class:`UsageError` with the file's name.

    Args:
        cfg: the config that is run.
        trust_data: whether names and links may lead out of a data set's folder, and code in its files may run.
    """
    build, read = BaseDataset.__init__, BaseDataset.full_init
    num_classes = (cfg.model.get('head') or {}).get('num_classes') if cfg.get('default_scope') == 'mmpretrain' else None

    def build_guarded(dataset: Any, *args: Any, **kwargs: Any) -> None:
        build(dataset, *args, **kwargs)
        # They are kept in the data set, so that workers have them however they are started.
        roots = [] if trust_data else roots_of(dataset)
        dataset.pipeline = Compose(guard_images(dataset.pipeline.transforms, roots, num_classes))

    def read_clearly(dataset: Any) -> None:
        place = dataset.ann_file or dataset.data_root or type(dataset).__name__
        try:
            read(dataset)
        except (UsageError, VideoError, DataError, ImportError):
            raise
        except Exception as error:  # what a broken list leads a toolbox to
            raise UsageError(f'{place}: the data set cannot be read: {one_line(error)}') from error
        if len(dataset) == 0:
            raise UsageError(f'{place}: the data set is empty')

    BaseDataset.__init__, BaseDataset.full_init = build_guarded, read_clearly
    try:
        with plain_data(trust_data):
            yield
    except (ImageError, DataError) as error:
        raise UsageError(one_line(error)) from error
    finally:
        BaseDataset.__init__, BaseDataset.full_init = build, read
