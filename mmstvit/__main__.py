"""``python -m mmstvit``: the ``mmstvit`` command of this Python."""

import sys

from .cli.main import main

if __name__ == '__main__':
    sys.exit(main())
