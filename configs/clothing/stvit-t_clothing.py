# STViT-T with 16 semantic tokens on photographs of clothes at 224 px, from random weights, for a GPU.
#   git clone --depth 1 https://github.com/alexeygrigorev/clothing-dataset-small data/clothing
#   python tools/train.py configs/clothing/stvit-t_clothing.py --amp
_base_ = [
    '../_base_/models/stvit.py',
    '../_base_/datasets/clothing.py',
    '../_base_/schedules/digits_adamw.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    backbone=dict(arch='tiny'),
    head=dict(num_classes=10, in_channels=192),
    train_cfg=dict(probs=[0.25, 0.25]),
)

optim_wrapper = dict(optimizer=dict(lr=5e-4))
warm_up = 10
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=warm_up, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=warm_up, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=200, val_interval=10)
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=10, max_keep_ckpts=1))
randomness = dict(seed=0)
