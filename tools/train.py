"""Train a model: ``python tools/train.py CONFIG``, see ``--help``."""

# Data loader workers may import this file anew, so what mmstvit does at import must stand outside main().
from mmstvit.cli.train import main

if __name__ == '__main__':
    main()
