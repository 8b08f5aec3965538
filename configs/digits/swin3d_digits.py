# Plain Video Swin on clips of moving digits: the dense baseline of stvit-swin3d_digits.py.
#   python tools/dataset_converters/digits_clips.py
#   python tools/train.py configs/digits/swin3d_digits.py
_base_ = [
    '../_base_/datasets/digits_clips.py',
    '../_base_/schedules/digits_adamw.py',
    'mmaction::_base_/default_runtime.py',
]

model = dict(
    type='Recognizer3D',
    backbone=dict(
        type='mmstvit.STViTSwin3D',
        arch=dict(embed_dims=32, depths=(1, 1, 4, 1), num_heads=(1, 2, 4, 8)),
        patch_size=(2, 4, 4),
        window_size=(4, 3, 3),
        semantic_size=None,
        drop_path_rate=0.0,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.1),
    ),
    cls_head=dict(type='I3DHead', num_classes=8, in_channels=256, dropout_ratio=0.0, average_clips='prob'),
    data_preprocessor=dict(type='ActionDataPreprocessor', mean=[80.0] * 3, std=[60.0] * 3, format_shape='NCTHW'),
)

# Motion is learned after a while on which the loss stands still; with a higher rate it stays there.
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=10, val_interval=2)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=1, max_keep_ckpts=2, save_best=None),
)
randomness = dict(seed=0)
