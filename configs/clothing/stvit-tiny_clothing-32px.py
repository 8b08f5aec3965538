# A small STViT on photographs of clothes at 32 px, from random weights, for a CPU.
#   git clone --depth 1 https://github.com/alexeygrigorev/clothing-dataset-small data/clothing
#   python tools/train.py configs/clothing/stvit-tiny_clothing-32px.py
# Top-1 71.9 % (74.2, 70.4, 71.0 with seeds 0, 1, 2), 9 minutes on one core.
_base_ = [
    '../_base_/models/stvit_tiny.py',
    '../_base_/datasets/clothing.py',
    '../_base_/schedules/digits_adamw.py',
    'mmpretrain::_base_/default_runtime.py',
]

data_preprocessor = dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7])  # of CIFAR-10

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

train_cfg = dict(max_epochs=60, val_interval=10)
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=10, max_keep_ckpts=1))
randomness = dict(seed=0)
