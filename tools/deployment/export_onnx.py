"""Export a model to ONNX: ``python tools/deployment/export_onnx.py CONFIG CHECKPOINT OUT.onnx``, see ``--help``."""

from mmstvit.cli.export_onnx import main

if __name__ == '__main__':
    main()
