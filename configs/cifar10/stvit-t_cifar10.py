# STViT of the width of DeiT-T with 16 of 64 tokens on CIFAR-10, for a GPU: a convolutional stem, bfloat16.
#   python tools/train.py configs/cifar10/stvit-t_cifar10.py
# With train_cfg.max_epochs=40: top-1 86.6 % (86.6, 86.8, 86.5 with seeds 0, 1, 2), 10 minutes on an NVIDIA H200 beside
# five others.
_base_ = [
    '../_base_/datasets/cifar10_folders.py',
    '../_base_/schedules/cifar10_adamw.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmstvit.STViT',
        arch='tiny',
        img_size=32,
        tokenizer=dict(type='ConvStem', num_convs=2, depth=3),
        semantic_grid=(4, 4),
        drop_path_rate=0.1,
    ),
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=10,
        in_channels=192,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)], probs=[0.25, 0.25]),
)

# Batches of one size: another would be compiled again.
train_dataloader = dict(batch_size=512, drop_last=True, num_workers=2, persistent_workers=True)
optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.0, optimizer=dict(lr=1e-3))
warm_up = 5
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=warm_up, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=warm_up, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=80, val_interval=10)
auto_scale_lr = dict(base_batch_size=512)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=10, max_keep_ckpts=1),
)
randomness = dict(seed=0)
