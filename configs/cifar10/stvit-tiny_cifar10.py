# A small STViT with 16 of 64 tokens on CIFAR-10, for a CPU.
#   python tools/train.py configs/cifar10/stvit-tiny_cifar10.py
_base_ = [
    '../_base_/models/stvit_tiny.py',
    '../_base_/datasets/cifar10_folders.py',
    '../_base_/schedules/cifar10_adamw.py',
    'mmpretrain::_base_/default_runtime.py',
]

default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=1, max_keep_ckpts=1),
)
randomness = dict(seed=0)
