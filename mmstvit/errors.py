"""What a user can mend, told in one line: the commands print no traceback for it.

Only the standard library is imported with this module: a command says what is missing where mmengine is not there.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .compat.requires import how_to_install

if TYPE_CHECKING:
    from mmengine.registry import Registry

TRACEBACK = 'MMSTVIT_TRACEBACK'


class UsageError(Exception):
    """Something the user can mend; its text is one line that says how."""


_FAULTS = (UsageError, OSError, ImportError, KeyError, TypeError, ValueError, AttributeError, AssertionError)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with exit code 2 and one line for what the user can mend, 130 for Ctrl-C.

    The traceback goes into the run's log file, and to the terminal too where the variable ``MMSTVIT_TRACEBACK`` is
    set. Errors of other types than those of wrong values (an index, a kernel, shapes) keep their traceback unless they
    come from a part of a config: one that is being built, a layer or a transform.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not isinstance(error, _FAULTS) and place_of(error) is None:
            raise
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        print(f'error: {describe(error)}', file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def as_usage_error(*kinds: type[Exception], place: str = '') -> Iterator[None]:
    """Context manager in which exceptions of some kinds become a :class:`UsageError`, which begins with the place."""
    try:
        yield
    except kinds as error:
        raise UsageError(f'{place}: {one_line(error)}' if place else one_line(error)) from error


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` is the beginning of, or else the one most like it, ``None`` if none is.

    Of several that it begins, those whose next character ends a word come first, in the order that they are given in:
    ``stvit-s`` means ``stvit-s_8xb128_in1k`` and not ``stvit-r_digits``, which has more characters in common.
    """
    lower, by_lower = name.lower(), {k.lower(): k for k in known}
    begun = [k for k in by_lower if lower and k.startswith(lower)]
    if begun:
        return by_lower[min(begun, key=lambda k: k[len(lower) : len(lower) + 1].isalnum())]
    near = difflib.get_close_matches(lower, by_lower, n=1)
    return by_lower[near[0]] if near else None


def suggest(name: str, known: Iterable[str]) -> str:
    """``'; did you mean X?'`` for the nearest of the known names, or nothing."""
    near = nearest(name, known)
    return f'; did you mean {near}?' if near else ''


def describe(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, UsageError):
        return one_line(error)
    explained = how_to_install(error) or (_explain(error) if sys.modules.get('mmengine') else None)
    if explained:
        return explained
    log, place = _log_traceback(error), place_of(error)
    line = f'{place}: {_text(error)}' if place else _text(error)
    where = f'the traceback is in {log}' if log else f'{TRACEBACK}=1 shows the traceback'
    return f'{line} ({type(error).__name__}; {where})'


def place_of(error: BaseException) -> str | None:
    """As :func:`mmstvit.error_place.place_of`, which imports more than a command needs that goes well."""
    from . import error_place

    return error_place.place_of(error)


def _text(error: BaseException) -> str:
    """The text of an exception, or of what it lacks one for."""
    if isinstance(error, KeyError) and len(error.args) == 1 and ' ' not in str(error.args[0]).strip():
        # A key alone says nothing: the function that raised is told, with its class.
        code = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1].f_code
        return f'{getattr(code, "co_qualname", code.co_name)} finds no {error.args[0]!r}'
    if isinstance(error, AssertionError) and not str(error):
        return traceback.extract_tb(error.__traceback__)[-1].line or type(error).__name__
    return one_line(error)


def one_line(error: BaseException) -> str:
    """The text of an exception without line breaks."""
    if isinstance(error, KeyError) and len(error.args) == 1:
        text = str(error.args[0])  # str() of a KeyError is a repr
    elif isinstance(error, OSError) and error.filename:
        text = f'{error.strerror or error}: {error.filename}'
    else:
        text = str(error)
    if re.match(r'Caught \w+ in DataLoader worker', text):
        # What goes before is the worker's traceback, the last line of which names the type again.
        text = re.sub(r'^[\w.]+Error: ', '', text.strip().splitlines()[-1])
    return ' '.join(text.split()) or type(error).__name__


def _log_traceback(error: BaseException) -> str | None:
    """Write the traceback into the log file of the run, and return its path."""
    if not sys.modules.get('mmengine'):  # nothing has been run
        return None
    from mmengine.logging import MMLogger

    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler) and handler.stream:
            try:
                handler.stream.write(''.join(traceback.format_exception(error)))
                handler.stream.flush()
            except OSError:  # the disk is full
                return None
            return os.path.relpath(handler.baseFilename)
    return None


def _explain(error: BaseException) -> str | None:
    """A better line for the commonest faults of a config: an unknown setting or type, a pipeline without its end."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    refused = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if isinstance(error, TypeError) and refused:
        from mmengine.registry import LOOPS  # the runner builds its own loops without the registry

        built = [frame.f_locals.get('obj_cls') for frame in frames if frame.f_code.co_name == 'build_from_cfg']
        cls = built[-1] if built else LOOPS.get(refused[1])
        name, known = refused[2], settings_of(cls) if inspect.isclass(cls) else []
        if cls is None or not known or name in known:
            return None  # refused further down, by something that this class builds
        hint = suggest(name, known) or f'; it takes {", ".join(known)}'
        return f'{cls.__name__} has no setting {name}{hint}'
    if isinstance(error, KeyError) and error.args == ('inputs',) and 'Preprocessor' in (place_of(error) or ''):
        return (
            'the samples of the data set have no inputs: its pipeline must end with a step that packs them, such as '
            'PackInputs, PackDetInputs or PackActionInputs'
        )
    unknown = re.match(r'(\S+) is not in the .* registry', one_line(error))
    if isinstance(error, KeyError) and unknown and 'registry' in frames[-1].f_locals:
        return unknown_type(unknown[1], frames[-1].f_locals['registry'])
    return None


def unknown_type(name: str, registry: Registry) -> str:
    """The line for a ``type`` that nothing is registered under."""
    names, root = list(registry.module_dict), registry
    while root.parent is not None:
        root = root.parent
        names += root.module_dict
    names += [f'{scope}.{name}' for scope, child in root.children.items() for name in child.module_dict]
    known: dict[str, str] = {}
    for full in names:  # a name without its scope is compared with names without theirs
        known.setdefault(full if '.' in name else full.split('.')[-1], full)
    near = nearest(name, known)
    hint = f'did you mean {known[near]}?' if near else 'what registers it must be named in custom_imports'
    return f"{registry.scope} knows no {registry.name} of type='{name}'; {hint}"


def settings_of(cls: type) -> list[str]:
    """The arguments of a class, with those of its bases where it hands on what it does not know."""
    names = []
    for base in inspect.getmro(cls):
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base).parameters.values()
        names += [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(dict.fromkeys([*names, *getattr(cls, 'flat_options', ())]))
