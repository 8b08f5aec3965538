"""Infer images without PyTorch: ``python tools/deployment/run_onnx.py MODEL.onnx IMAGE...``, see ``--help``."""

from mmstvit.deploy.run_onnx import main

if __name__ == '__main__':
    main()
