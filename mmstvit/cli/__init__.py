"""The commands: arguments and printing."""

import os

from ..compat import mmpretrain_imports

mmpretrain_imports.install()  # commands start in less time
os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # of PyTorch's profiler, which talks
