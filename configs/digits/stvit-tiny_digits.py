# STViT with 16 of 64 tokens on handwritten digits.
#   python tools/train.py configs/digits/stvit-tiny_digits.py
_base_ = [
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits_adamw.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmstvit.STViT',
        arch=dict(embed_dims=64, num_layers=6, num_heads=2, feedforward_channels=256),
        img_size=32,
        patch_size=4,
        semantic_grid=(4, 4),
        stgm_layer=2,
        # 0.02, the usual, is made for widths of hundreds: at 64 the first epochs would be lost.
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.1),
    ),
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=1, max_keep_ckpts=2),
)
randomness = dict(seed=0)
