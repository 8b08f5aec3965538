"""Show what semantic tokens stand for: ``python tools/visualization/show_tokens.py CONFIG CHECKPOINT INPUT...``."""

from mmstvit.cli.show_tokens import main

if __name__ == '__main__':
    main()
