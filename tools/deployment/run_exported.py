"""Infer images without PyTorch: ``python tools/deployment/run_exported.py MODEL IMAGE...``, see ``--help``."""

from mmstvit.deploy.run_exported import main

if __name__ == '__main__':
    main()
