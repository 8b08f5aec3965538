# The network of configs/cifar10/stvit-t_cifar10.py on clothes at 32 px, which a processor trains: from random weights.
#   python tools/train.py configs/clothing/stvit-t_clothing-32px.py
_base_ = ['./stvit-t_clothing.py']

data_preprocessor = dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7])  # of CIFAR-10
model = dict(
    backbone=dict(img_size=32, tokenizer=dict(type='ConvStem', num_convs=2, depth=3)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)], probs=[0.25, 0.25]),
)

# Shrunk once and kept in memory.
shrink = [dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=40, edge='short', interpolation='area')]
train_pipeline = [
    dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.5, 1.0), interpolation='bilinear'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3, backend='cv2'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=36, edge='short', interpolation='area'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    num_workers=0,  # a worker would spend more on handing the images over
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='mmstvit.CachedImages',
        dataset=dict(**_base_.clothes, data_prefix='train', pipeline=shrink),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(num_workers=0, dataset=dict(pipeline=test_pipeline))

warm_up = 1
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=warm_up, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=warm_up, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=20, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
