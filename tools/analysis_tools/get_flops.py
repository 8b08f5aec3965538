"""Count multiply-adds and tokens: ``python tools/analysis_tools/get_flops.py CONFIG...``, see ``--help``."""

from mmstvit.cli.flops import main

if __name__ == '__main__':
    main()
