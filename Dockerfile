# syntax=docker/dockerfile:1
# mmstvit on a CPU, as a user without rights:
#   docker build -t mmstvit .
#   docker run --rm -v "$PWD:/work" mmstvit infer stvit-tiny_digits photos --checkpoint weights.pth
# On a GPU: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t mmstvit . and run --gpus all
FROM python:3.11-slim-bookworm

ARG TORCH="torch==2.12.1 torchvision==0.27.1"
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Extras of mmstvit: cls, det, seg, video, analysis, deploy, openvino, vis, demo, hf, or all
ARG EXTRAS=cls,analysis

# OpenCV's libraries. No versions: those of the release of Debian that the image has.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# PyTorch before the rest: a change of the code downloads nothing again.
# hadolint ignore=DL3013,SC2086
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" $TORCH
WORKDIR /src
COPY . .
RUN grep -v '^torch' requirements/pins.txt > /tmp/pins.txt \
    && pip install --no-cache-dir ".[$EXTRAS]" -c /tmp/pins.txt

RUN useradd --create-home --uid 1000 mmstvit
USER 1000
WORKDIR /work
ENTRYPOINT ["mmstvit"]
CMD ["--help"]
