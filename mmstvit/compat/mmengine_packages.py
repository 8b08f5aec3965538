"""Make ``_base_ = ['mmstvit::...']``, ``_base_ = ['mmseg::...']`` and ``get_config('mmstvit::...')`` work.

mmengine looks packages up in a table of its own and refuses others; there mmseg is under the name of the original line
alone. It also marks what a config inherits from a package with that package's scope, and would look for mmpretrain's
classes in mmstvit; our configs mean the toolbox of the config that inherits them. And for each config of a package it
reads all metafiles of the package, half a second of YAML; here they are read once. This can go when mmengine takes any
package, leaves the scope to the config and looks for the file alone.
"""

import functools

import wrapt

from ..errors import suggest
from ..paths import package_data

_PREFIX = 'mmstvit::'


def install() -> None:
    """Change mmengine when it is imported, at once where it has been."""
    wrapt.register_post_import_hook(_enter, 'mmengine.config.utils')
    wrapt.register_post_import_hook(_replace, 'mmengine.config.config')


def _enter(module) -> None:
    module.MODULE2PACKAGE.setdefault('mmstvit', 'mmstvit')
    module.MODULE2PACKAGE['mmseg'] = 'mmseg'  # by the module, which both lines install
    module.load = functools.cache(module.load)


def _replace(module) -> None:
    elsewhere = module.Config._get_cfg_path

    def find(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if not cfg_path.startswith(_PREFIX):
            return elsewhere(cfg_path, filename)
        configs = package_data() / 'configs'
        path = configs / cfg_path.removeprefix(_PREFIX)
        if not path.is_file():
            known = [_PREFIX + p.relative_to(configs).as_posix() for p in configs.rglob('*.py')]
            raise FileNotFoundError(f'there is no config {cfg_path}{suggest(cfg_path, known)}')
        return str(path), None

    module.Config._get_cfg_path = staticmethod(find)
