# A small STViT with 16 of 64 tokens on CIFAR-10, for a CPU: four layers of width 80 behind a convolutional stem.
#   python tools/train.py configs/cifar10/stvit-tiny_cifar10.py
_base_ = [
    '../_base_/datasets/cifar10_folders.py',
    '../_base_/schedules/cifar10_adamw.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmstvit.STViT',
        arch=dict(embed_dims=80, num_layers=4, num_heads=2, feedforward_channels=320),
        img_size=32,
        tokenizer=dict(type='ConvStem', num_convs=2, depth=3),
        semantic_grid=(4, 4),
        stgm_layer=1,
        # 0.02, the usual, is made for widths of hundreds.
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.1),
    ),
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=10,
        in_channels=80,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)

default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=1, max_keep_ckpts=1),
)
randomness = dict(seed=0)
