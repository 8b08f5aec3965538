# UPerNet on CamVid from random weights, with a plain Swin of two thirds of Swin-T's width: the dense baseline of
# upernet_stvit-r_1xb8-80e_camvid-360x480.py.
_base_ = [
    '../_base_/models/upernet_swin_small.py',
    '../_base_/datasets/camvid.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/schedules/maps_adamw.py',
]

void = 11  # of CamVid's maps

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], size=(360, 480), seg_pad_val=void
    ),
    backbone=dict(
        arch=dict(embed_dims=64, depths=(2, 2, 6, 2), num_heads=(2, 4, 8, 16)), window_size=7, drop_path_rate=0.1
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512], channels=128, num_classes=11, ignore_index=void),
    auxiliary_head=dict(in_channels=256, channels=64, num_classes=11, ignore_index=void),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=80, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=10))
log_processor = dict(by_epoch=True)  # mmseg's runtime counts iterations
