"""Read pickled and YAML data sets without running what is in them, where a command asks for that.

mmengine's ``load`` unpickles annotation files (``*.pkl``: skeletons and proposals of mmaction2, splits of RefCOCO,
sizes of OpenImages) and builds any Python object that a ``*.yaml`` names: handlers of mmengine are registered in their
place. mmpretrain unpickles the batches of CIFAR, and mmdet lets numpy unpickle the label tree of OpenImages, by modules
that they import: for the time of the command they have others. It can go when they read them without running code.

mmengine's ``list_from_file`` takes a byte order mark for a part of the first name, and a blank last line for one more:
what reads local files for it leaves both out.
"""

import contextlib
import pickle
import re
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import wrapt
import yaml
from mmengine.fileio import LocalBackend, PickleHandler, YamlHandler, register_backend, register_handler
from mmengine.fileio.backends.registry_utils import backends
from mmengine.fileio.handlers import file_handlers
from mmengine.fileio.io import backend_instances

from ..io.pickles import loads, refused

_TRUST = 'give --trust-data if you know who made it'
_STRUCTURED = ('.json', '.yaml', '.yml', '.xml', '.py')  # endings of texts whose lines are no entries
_read = threading.local()  # the local file that was read last, and its length


class DataError(ValueError):
    """A data file that is not read; its text is one line that begins with the file's name."""


class NamedFiles(LocalBackend):
    """mmengine's local files, of which the name of the last one is kept: handlers get the content alone."""

    def get(self, filepath: Any) -> bytes:
        """Read a file."""
        data = super().get(filepath)
        _read.last = str(filepath), len(data)
        return data

    def get_text(self, filepath: Any, encoding: str = 'utf-8') -> str:
        """Read a text file without its byte order mark, and a list without blanks at the ends of it and its lines."""
        text = super().get_text(filepath, 'utf-8-sig' if encoding == 'utf-8' else encoding)
        if not str(filepath).lower().endswith(_STRUCTURED):
            text = ''.join(f'{line.rstrip()}\n' for line in text.rstrip().split('\n')) if text.strip() else ''
        _read.last = str(filepath), len(text)
        return text


def _name(content: Any, file: Any = None) -> str:
    """The name of an open file, or of the file whose content it is."""
    if isinstance(getattr(file, 'name', None), str):
        return file.name
    name, length = getattr(_read, 'last', ('', -1))
    return name if length == len(content) else 'a file of the data set'


def _unsafe(name: str, what: str) -> DataError:
    return DataError(f'{name}: it holds {what}, which could run code, and is not read: {_TRUST}')


# --------------------------------------------------------------------------------------------- pickles, YAML, arrays
def _load_pickle(data: bytes, file: Any = None, **settings: Any) -> Any:
    try:
        return loads(data, **settings)
    except Exception as error:  # whatever a broken file raises, it is the file's fault
        what = refused(error)
        if what:
            raise _unsafe(_name(data, file), what) from error
        raise DataError(f'{_name(data, file)}: it is no pickle, or incomplete') from error


class _PlainPickles(PickleHandler):
    def load_from_fileobj(self, file: Any, **settings: Any) -> Any:
        return _load_pickle(file.read(), file, **settings)


class _PlainYaml(YamlHandler):
    def load_from_fileobj(self, file: Any, **settings: Any) -> Any:
        text = file.read()
        try:
            return yaml.load(text, getattr(yaml, 'CSafeLoader', yaml.SafeLoader))
        except yaml.constructor.ConstructorError as error:
            tag = re.search(r"'tag:yaml.org,2002:(python/.+)'", str(error.problem))
            if tag:
                raise _unsafe(_name(text, file), f'!!{tag[1]}') from error
            raise


class _Numpy(wrapt.ObjectProxy):
    def load(self, file: Any, *args: Any, **settings: Any) -> Any:
        try:
            return self.__wrapped__.load(file, allow_pickle=False)
        except ValueError as error:
            raise DataError(f'{file}: it is no array of numbers ({error})') from error


# ------------------------------------------------------------------------------------------------- for some time
# The endings of files; what reads them in mmengine, and what reads them plainly.
_HANDLERS = {('pkl', 'pickle'): (PickleHandler, _PlainPickles), ('yaml', 'yml'): (YamlHandler, _PlainYaml)}
# A module and a name in it; what it stands for there, and what it stands for meanwhile.
_NAMES = {
    ('mmpretrain.datasets.cifar', 'pickle'): (pickle, SimpleNamespace(loads=_load_pickle)),
    ('mmdet.datasets.openimages', 'np'): (np, _Numpy(np)),
}


def _set(plain: bool) -> None:
    for endings, choice in _HANDLERS.items():
        register_handler(list(endings))(choice[plain])
    if not issubclass(backends['local'], NamedFiles):
        register_backend('local', NamedFiles, force=True, prefixes='')
        backend_instances.clear()  # those of before
    for (module, name), versions in _NAMES.items():
        if module in sys.modules:
            setattr(sys.modules[module], name, versions[plain])


@contextlib.contextmanager
def plain_data(trust_data: bool = False) -> Iterator[None]:
    """While it is open, pickles and YAML files of data sets hold arrays and plain containers, or :class:`DataError`.

    Modules that are imported meanwhile are changed when it is opened once more.
    """
    before = isinstance(file_handlers['pkl'], _PlainPickles)
    _set(not trust_data)
    try:
        yield
    finally:
        _set(before)


def start_worker(worker_id: int, init: Callable[[int], None] | None, trust_data: bool) -> None:
    """Let the worker of a dataloader read as its command does, however it was started."""
    _set(not trust_data)
    if init is not None:
        init(worker_id)
