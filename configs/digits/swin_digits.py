# Plain Swin on handwritten digits: the dense baseline of stvit-swin_digits.py and stvit-r_digits.py.
#   python tools/train.py configs/digits/swin_digits.py
_base_ = [
    '../_base_/datasets/digits_96.py',
    '../_base_/schedules/digits_adamw.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmstvit.STViTSwin',
        arch=dict(embed_dims=24, depths=(2, 2, 6, 2), num_heads=(1, 2, 4, 8)),
        window_size=3,
        semantic_size=None,
        drop_path_rate=0.0,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.1),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=192,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)

train_cfg = dict(max_epochs=20)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=1, max_keep_ckpts=2),
)
randomness = dict(seed=0)
