"""Rename a published checkpoint: ``python tools/model_converters/published_to_mmstvit.py SRC DST``, see ``--help``."""

from mmstvit.cli.convert import main

if __name__ == '__main__':
    main()
