"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``, see ``--help``."""

# Data loader workers may import this file anew, so what mmstvit does at import must stand outside main().
from mmstvit.cli.test import main

if __name__ == '__main__':
    main()
