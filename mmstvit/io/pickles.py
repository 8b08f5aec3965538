"""Restricted unpickling of arrays and plain containers.

The few types that a file may name are answered by stand-ins, so that nothing of numpy's own reading is reached: the
state of a ``dtype`` can make numpy take numbers for addresses. :mod:`mmstvit.io.checkpoints` gives them to PyTorch's
weights-only unpickler; :func:`loads` reads the pickles of data sets.
"""

import collections
import io
import pickle
import re
from typing import Any, ClassVar

import numpy as np

# How PyTorch, and what is here, names what is refused.
_REFUSED = re.compile(r'(?:GLOBAL|unrecognized function|Can only .* but got) (<[^>]+>|\S+)')


def refused(error: Exception) -> str | None:
    """Return the name that an unpickler refused, or ``None`` where it failed otherwise."""
    match = isinstance(error, pickle.UnpicklingError) and _REFUSED.search(str(error))
    return match[1] if match else None


# -------------------------------------------------------------------------------------------------- arrays and numbers
class _Number:
    """Stands for ``numpy.dtype``: of numbers and text alone, of whose state the byte order alone is taken."""

    def __init__(self, name: str, *flags: Any) -> None:
        self.dtype = np.dtype(name)
        if self.dtype.kind not in 'biufcSU':
            raise pickle.UnpicklingError(f'Unsupported GLOBAL numpy.dtype[{name}]')

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Stands for ``numpy.ndarray``, and is written again as one."""

    def __new__(cls) -> '_Array':
        return super().__new__(cls, (0,))

    def __setstate__(self, state: tuple) -> None:
        _, shape, number, in_columns, data = state
        whole = np.frombuffer(_bytes(data), number.dtype).reshape(shape, order='F' if in_columns else 'C')
        parts: Any = whole.__reduce__()
        super().__setstate__(parts[2])

    def __reduce__(self) -> tuple:
        return tuple(self.view(np.ndarray).__reduce__())


def _array(*kind: Any) -> _Array:
    return _Array()


def _scalar(number: _Number, data: bytes | str) -> np.generic:
    return np.frombuffer(_bytes(data), number.dtype, count=1)[0]


def _from_buffer(data: bytes, number: _Number, shape: tuple, order: Any) -> np.ndarray:
    return np.frombuffer(data, number.dtype).reshape(shape, order=order)


def _bytes(data: bytes | str) -> bytes:
    """Python 2 wrote bytes as text."""
    return data.encode('latin1') if isinstance(data, str) else data


def _empty() -> bytes:
    """Stands for ``bytes``, which would take any number for a length; others are written by ``_codecs.encode``."""
    return b''


# Stand-in and name; the second of two names since numpy 2.
NUMPY = [
    (_Number, 'numpy.dtype'),
    (_Array, 'numpy.ndarray'),
    *((_array, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
    *((_scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
    (_empty, 'builtins.bytes'),
]


# ------------------------------------------------------------------------------------------------ pickles of data sets
def _encoded(text: str, encoding: str) -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'Unsupported GLOBAL _codecs.encode({encoding})')
    return text.encode('latin1')


def _bytearray(data: bytes | str = b'', encoding: str = 'latin1') -> bytearray:
    return bytearray(memoryview(_bytes(data)))  # a number is none


_BUILTINS = dict(bytearray=_bytearray, bytes=_empty, complex=complex, frozenset=frozenset, set=set)
_PLAIN = {
    **{name: stand_in for stand_in, name in NUMPY},
    **{f'numpy.{core}.numeric._frombuffer': _from_buffer for core in ('core', '_core')},
    '_codecs.encode': _encoded,
    'collections.OrderedDict': collections.OrderedDict,
    **{f'{module}.{name}': kind for module in ('builtins', '__builtin__') for name, kind in _BUILTINS.items()},
}


class _Call:
    """A function or type that a pickle may call, and do nothing else with: set no attribute, make no subclass."""

    __slots__ = ('_call',)

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError('a function has no state')


class _Unpickler(pickle._Unpickler):
    """The one in Python: that in C takes any memory that a file names as the place of an object."""

    dispatch: ClassVar[Any] = dict(pickle._Unpickler.dispatch)
    read: Any  # both are there while it loads
    append: Any

    def find_class(self, module: str, name: str) -> _Call:
        """The stand-in for a name."""
        if f'{module}.{name}' not in _PLAIN:
            raise pickle.UnpicklingError(f'Unsupported GLOBAL {module}.{name}')
        return _Call(_PLAIN[f'{module}.{name}'])

    def load_bytearray8(self) -> None:
        """Read before memory is taken for it."""
        length = int.from_bytes(self.read(8), 'little')
        data = self.read(length)
        if len(data) < length:
            raise EOFError
        self.append(bytearray(data))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def loads(data: bytes, **settings: Any) -> Any:
    """Load a pickle of arrays and plain containers without running code.

    Args:
        data: the pickle.
        **settings: of ``pickle.loads``, e.g. ``encoding``.

    Returns:
        What it holds.

    Raises:
        pickle.UnpicklingError: it holds anything else, see :func:`refused`.
        Exception: whatever a broken file leads to.
    """
    return _Unpickler(io.BytesIO(data), **settings).load()
