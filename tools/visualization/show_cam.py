"""Show what in an image speaks for a class: ``python tools/visualization/show_cam.py CONFIG CHECKPOINT IMAGE``."""

from mmstvit.cli.show_cam import main

if __name__ == '__main__':
    main()
