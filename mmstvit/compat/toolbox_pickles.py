"""Read pickled and YAML data sets without running what is in them, where a command asks for that.

mmengine's ``load`` unpickles annotation files (``*.pkl``: skeletons and proposals of mmaction2, splits of RefCOCO,
sizes of OpenImages) and builds any Python object that a ``*.yaml`` names; mmpretrain unpickles the batches of CIFAR,
and mmdet lets numpy unpickle the label tree of OpenImages. It can go when they read them without running code.
"""

import contextlib
import inspect
import os
from collections.abc import Iterator
from typing import Any

import wrapt

# In the environment, so that workers have it however they are started.
_SWITCH = 'MMSTVIT_PLAIN_DATA'
_TRUST = 'give --trust-data if you know who made it'
# What the toolboxes call the file of which they hand on the content alone.
_NAMES = ('local_path', 'file_path', 'path', 'file')


class DataError(ValueError):
    """A data file that is not read; its text is one line that begins with the file's name."""


@contextlib.contextmanager
def plain_data(trust_data: bool = False) -> Iterator[None]:
    """While it is open, pickles and YAML files of data sets hold arrays and plain containers, or :class:`DataError`."""
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = '' if trust_data else '1'
    try:
        yield
    finally:
        os.environ.pop(_SWITCH)
        if before is not None:
            os.environ[_SWITCH] = before


def install() -> None:
    """Put the guards into the modules, each when it is imported or at once where it has been."""
    for name, guard in (
        ('mmengine.fileio.handlers.pickle_handler', _guard_pickle),
        ('mmengine.fileio.handlers.yaml_handler', _guard_yaml),
        ('mmpretrain.datasets.cifar', _guard_pickle),
        ('mmdet.datasets.openimages', _guard_numpy),
    ):
        wrapt.register_post_import_hook(guard, name)


def _guard_pickle(module: Any) -> None:
    module.pickle = _Pickle(module.pickle)


def _guard_numpy(module: Any) -> None:
    module.np = _Numpy(module.np)


def _guard_yaml(module: Any) -> None:
    import yaml

    class PlainLoader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):
        pass

    def refuse(loader: Any, tag: str, node: Any) -> None:
        raise _unsafe(f'!!python/{tag}')

    PlainLoader.add_multi_constructor('tag:yaml.org,2002:python/', refuse)
    loader = module.Loader
    module.Loader = lambda stream: PlainLoader(stream) if os.environ.get(_SWITCH) else loader(stream)


class _Pickle(wrapt.ObjectProxy):
    """The module ``pickle`` for those who read data sets."""

    def load(self, file: Any, **settings: Any) -> Any:
        return (
            self.loads(file.read(), **settings) if os.environ.get(_SWITCH) else self.__wrapped__.load(file, **settings)
        )

    def loads(self, data: bytes, **settings: Any) -> Any:
        if not os.environ.get(_SWITCH):
            return self.__wrapped__.loads(data, **settings)
        from ..io.pickles import loads, refused

        try:
            return loads(data, **settings)
        except Exception as error:  # whatever a broken file raises, it is the file's fault
            what = refused(error)
            if what:
                raise _unsafe(what) from error
            raise DataError(f'{_file()}: it is no pickle, or incomplete') from error


class _Numpy(wrapt.ObjectProxy):
    """The module ``numpy`` for those who read data sets."""

    def load(self, file: Any, *args: Any, **settings: Any) -> Any:
        if os.environ.get(_SWITCH):
            args, settings = (), dict(allow_pickle=False)
        try:
            return self.__wrapped__.load(file, *args, **settings)
        except ValueError as error:
            if not os.environ.get(_SWITCH):
                raise
            raise DataError(f'{_file()}: it is no array of numbers ({error})') from error


def _unsafe(what: str) -> DataError:
    return DataError(f'{_file()}: it holds {what}, which could run code, and is not read: {_TRUST}')


def _file() -> str:
    """The name of the file that is read, from the variables of the toolbox: its content alone is handed on."""
    frame = inspect.currentframe()
    while frame:
        if frame.f_globals.get('__name__') != __name__:
            for name in _NAMES:
                if isinstance(found := frame.f_locals.get(name), str):
                    return found
        frame = frame.f_back
    return 'a pickled file'
