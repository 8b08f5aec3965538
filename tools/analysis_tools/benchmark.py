"""Time networks side by side: ``python tools/analysis_tools/benchmark.py CONFIG... --baseline X``, see ``--help``."""

from mmstvit.cli.benchmark import main

if __name__ == '__main__':
    main()
