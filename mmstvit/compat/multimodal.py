"""Let mmpretrain and mmaction2 be imported beside transformers 5.

``onedl-mmpretrain`` 1.3.6 and mmaction2 1.2.0 import their multimodal models wherever a transformers from 4.28 is
installed, and die of functions that 5 has removed. :func:`install` lets them take those models for not installed then,
so that asking for one says what to install. With releases that work with transformers 5, or test for it, this file can
go.
"""

from importlib.metadata import PackageNotFoundError, version

import wrapt


def install() -> None:
    """Decide when their tests of requirements are imported; may be called more than once."""
    for package in ('mmpretrain', 'mmaction'):
        wrapt.register_post_import_hook(_without_multimodal, f'{package}.utils.dependency')


def _without_multimodal(module) -> None:
    try:
        major = int(version('transformers').partition('.')[0])
    except PackageNotFoundError:
        return
    if major >= 5:
        module.WITH_MULTIMODAL = False
