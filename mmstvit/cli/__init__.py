"""The commands: arguments and printing."""

from ..compat import mmpretrain_imports

mmpretrain_imports.install()  # commands start in less time
