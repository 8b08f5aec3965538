# UPerNet on CamVid from random weights for a CPU, at two thirds of the size, with a plain Swin a third as wide as
# Swin-T: the dense baseline of upernet_stvit-r_camvid.py.
#   python tools/train.py configs/camvid/upernet_swin_camvid.py
# mIoU 35.7 % (34.9, 36.5, 35.7 with seeds 0, 1, 2), 23 minutes on one core.
_base_ = ['./upernet_swin_1xb8-80e_camvid-360x480.py']

crop_size = (240, 320)  # windows of 5 x 5 fill the maps of stages 1 to 3
train_pipeline = _base_.train_pipeline
train_pipeline[2]['scale'] = crop_size[::-1]
train_pipeline[3]['crop_size'] = crop_size
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = crop_size[::-1]

model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(arch=dict(embed_dims=32, num_heads=(1, 2, 4, 8)), window_size=5, drop_path_rate=0.0),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=64),
    auxiliary_head=dict(in_channels=128, channels=32),
)

# A worker would take a core from training.
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**loader, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(**loader, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(**loader, dataset=dict(pipeline=test_pipeline))

optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=16, val_interval=8)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=1))
