"""Export a model to ONNX, OpenVINO or torch.export: ``python tools/deployment/export.py CONFIG CHECKPOINT OUT``."""

from mmstvit.cli.export import main

if __name__ == '__main__':
    main()
