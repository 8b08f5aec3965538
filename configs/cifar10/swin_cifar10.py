# Plain Swin on CIFAR-10, for a CPU: a token of each pixel, 8 x 8 of them in stage 3; the dense baseline of
# stvit-swin_cifar10.py and stvit-r_cifar10.py.
#   python tools/train.py configs/cifar10/swin_cifar10.py
# Top-1 60.1 % (59.4, 60.6, 60.3 with seeds 0, 1, 2), 27 minutes on one core.
_base_ = [
    '../_base_/datasets/cifar10_folders.py',
    '../_base_/schedules/cifar10_adamw.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmstvit.STViTSwin',
        arch=dict(embed_dims=12, depths=(2, 2, 6, 2), num_heads=(1, 1, 2, 4)),
        patch_size=1,
        window_size=4,
        semantic_size=None,
        drop_path_rate=0.0,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.1),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=96,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)

train_cfg = dict(max_epochs=5)  # five minutes each on one core
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=1, max_keep_ckpts=1),
)
randomness = dict(seed=0)
