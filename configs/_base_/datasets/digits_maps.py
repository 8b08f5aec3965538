# Scenes of handwritten digits with a map of classes for each, made by tools/dataset_converters/digits_scenes.py.
data_root = 'data/digits_scenes/'
prepare_data = 'python tools/dataset_converters/digits_scenes.py'  # told where the data is missing
scenes = dict(
    type='BaseSegDataset',
    data_root=data_root,
    img_suffix='.png',
    seg_map_suffix='.png',
    metainfo=dict(
        classes=('ground', *'0123456789'),
        palette=[  # dark enough for white names
            *([40, 40, 40], [220, 25, 70], [40, 140, 60], [180, 145, 0], [0, 110, 200], [220, 105, 20]),
            *([145, 30, 180], [0, 145, 165], [225, 40, 215], [115, 145, 0], [150, 90, 40]),
        ],
    ),
)

resize = dict(type='Resize', scale=(128, 128), keep_ratio=True)

# Nothing is mirrored: it would be no digit.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    resize,
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,  # a worker would take a core from training, and preparing these images is nothing
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**scenes, data_prefix=dict(img_path='train/', seg_map_path='maps/train/'), pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **scenes,
        data_prefix=dict(img_path='val/', seg_map_path='maps/val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
