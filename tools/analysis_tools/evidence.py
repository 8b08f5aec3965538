"""Train, measure and judge: ``make evidence`` or ``python tools/analysis_tools/evidence.py``, see ``--help``."""

from mmstvit.cli.evidence.command import main

if __name__ == '__main__':
    main()
