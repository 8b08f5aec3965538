"""Arguments of a training on a folder of one's own data: ``mmstvit train MODEL --data FOLDER``."""

import argparse
import re
from pathlib import Path

from ..apis.own_data import config_for_folder
from ..io.files import write_whole
from .common import read_config

# Options -> the settings of a config that they stand for.
_SETTINGS = dict(epochs='train_cfg.max_epochs', batch_size='train_dataloader.batch_size', checkpoint='load_from')


def add_own_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder of the data, and what is mostly chosen with it."""
    parser.add_argument(
        '--data',
        metavar='FOLDER',
        help='train on it: images or videos in a folder for each class, below train/ and val/ or, for a random split, '
        'without them; for detectors a COCO folder. The config that comes of it is written into the work dir',
    )
    parser.add_argument('--epochs', type=int, metavar='N', help='train_cfg.max_epochs; the schedule is scaled with it')
    parser.add_argument('--batch-size', type=int, metavar='N', help='train_dataloader.batch_size, of each process')
    parser.add_argument('--checkpoint', metavar='FILE|URL', help='load_from: weights to begin from')


def with_own_data_options(args: argparse.Namespace) -> argparse.Namespace:
    """Return the arguments, with the short options among ``--cfg-options``."""
    options = {key: getattr(args, name) for name, key in _SETTINGS.items() if getattr(args, name) is not None}
    args.cfg_options = {**args.cfg_options, **options}
    return args


def choose_own_data(args: argparse.Namespace) -> None:
    """Write the config of ``--data`` and let it be the one that is trained; a resumed training keeps its own."""
    if args.data is None:
        return
    cfg = read_config(args.config, args.cfg_options, args.work_dir)
    name = re.sub(r'[^\w.-]', '_', f'{Path(cfg.filename).stem}_{Path(args.data).resolve().name}')
    folder = Path(args.work_dir or Path('work_dirs') / name)
    path = folder / f'{name}.py'
    if args.resume and path.is_file():
        print(f'{path} is there: it is resumed with the data that it names.')
    else:
        own = config_for_folder(cfg, args.data, path, args.cfg_options)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, own.pretty_text.encode())
        print(f'The config is written to {path}: mmstvit test, infer and train take it.')
    args.config, args.work_dir = str(path), str(folder)
