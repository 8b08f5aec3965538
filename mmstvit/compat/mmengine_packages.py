"""Make ``_base_ = ['mmstvit::...']`` and ``get_config('mmstvit::...')`` work.

mmengine looks packages up in a table of its own and refuses others. This can go when mmengine takes any package.
"""

import wrapt


def install() -> None:
    """Enter mmstvit into mmengine's table when mmengine is imported, at once where it has been."""
    wrapt.register_post_import_hook(_enter, 'mmengine.config.utils')


def _enter(module) -> None:
    module.MODULE2PACKAGE.setdefault('mmstvit', 'mmstvit')
