"""Look at the files of splits: sizes and faults in their headers, files that are in two splits, files in none."""

import functools
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..datasets.checked_videos import CheckedVideos
from ..io.image_check import ImageError, check_image_file
from ..io.videos import Video, VideoError
from ..paths import is_address
from .datasets import with_inner
from .folders import files_in
from .label_maps import is_map_set, look_at_maps

_IMAGES, _VIDEOS = 20_000, 200  # whose headers are read; of more, so many evenly spaced
_MAPS = 2_000  # label maps that are decoded, likewise
_COMPARED = 50_000  # files that are compared by what is in them
_START = 1 << 16  # bytes that are compared, with the length of the file


@dataclass
class Files:
    """The files of a split.

    Attributes:
        paths: as the data sets name them, without those that are no local files.
        folders: where they lie.
        looked_at: number of those whose header was read.
        sizes: width and height of images, numbers of frames of videos.
        faults: a line for each that cannot be read.
        maps: the label maps of the images.
        labels: of the maps that were read, in how many each class occurs.
    """

    paths: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    looked_at: int = 0
    sizes: set[Any] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    maps: list[str] = field(default_factory=list)
    labels: Counter = field(default_factory=Counter)


def files_of(dataset: Any) -> Files:
    """Find the files of a built data set and those inside it, and read their headers."""
    files = Files()
    for part in with_inner(dataset):
        if isinstance(part, CheckedVideos) or not hasattr(part, 'data_prefix'):
            continue  # the data set inside has them
        infos = [part.get_data_info(i) for i in range(len(part))]
        names = [info.get('img_path') or info.get('filename') for info in infos]
        files.paths += [name for name in names if isinstance(name, str) and not is_address(name)]
        places = [place for place in part.data_prefix.values() if isinstance(place, str) and place]
        if is_map_set(part):
            files.maps += [info['seg_map_path'] for info in infos if info.get('seg_map_path')]
            labels, faults = look_at_maps(part, _spaced(range(len(part)), _MAPS))
            files.labels.update(labels)
            files.faults += faults
        files.folders |= {os.path.realpath(place) for place in places if os.path.isdir(place)}
    videos = any(isinstance(part, CheckedVideos) for part in with_inner(dataset))
    for path in _spaced(files.paths, _VIDEOS if videos else _IMAGES):
        files.looked_at += 1
        try:
            files.sizes.add(len(Video(path)) if videos else check_image_file(path))
        except (ImageError, VideoError) as error:
            files.faults.append(str(error))
    return files


def _spaced(items: Sequence, most: int) -> Sequence:
    return items[:: -(-len(items) // most)] if len(items) > most else items


def unused_files(splits: Mapping[str, Files]) -> dict[str, list[str]]:
    """The files, by folder, that lie beside those of the splits, with such endings, and are in none."""
    used = {os.path.realpath(path) for files in splits.values() for path in (*files.paths, *files.maps)}
    endings = {os.path.splitext(path)[1].lower() for path in used}
    folders = {folder for files in splits.values() for folder in files.folders}
    unused = {}
    for folder in sorted(folders):
        if any(folder != other and Path(folder).is_relative_to(other) for other in folders):
            continue  # it is looked through with that one
        inside = [name for name in files_in(folder) if os.path.splitext(name)[1].lower() in endings]
        unused[folder] = [name for name in inside if os.path.realpath(os.path.join(folder, name)) not in used]
    return {folder: names for folder, names in unused.items() if names}


def shared_files(one: Files, other: Files) -> list[tuple[str, str]] | None:
    """The pairs of files of two splits that are the same file or have the same content; ``None`` if they are too many.

    Content is the same if the first 64 KiB and the length are.
    """
    if len(one.paths) + len(other.paths) > _COMPARED:
        return None
    by_length = defaultdict(list)
    for path in filter(os.path.isfile, one.paths):
        by_length[os.path.getsize(path)].append(path)
    pairs = []
    for path in filter(os.path.isfile, other.paths):
        alike = by_length.get(os.path.getsize(path), ())
        same = next((candidate for candidate in alike if _digest(candidate) == _digest(path)), None)
        if same is not None:
            pairs.append((same, path))
    return pairs


@functools.lru_cache(maxsize=_COMPARED)
def _digest(path: str) -> bytes:
    with open(path, 'rb') as file:
        return hashlib.blake2b(file.read(_START), digest_size=16).digest()
