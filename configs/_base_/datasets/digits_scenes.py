# Scenes of handwritten digits in COCO's format, made by tools/dataset_converters/digits_scenes.py.
data_root = 'data/digits_scenes/'
prepare_data = 'python tools/dataset_converters/digits_scenes.py'  # told where the data is missing
scenes = dict(type='CocoDataset', metainfo=dict(classes=tuple('0123456789')), data_root=data_root)

resize = dict(type='Resize', scale=(128, 128), keep_ratio=True)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    resize,
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,  # a worker would take a core from training, and preparing these images is nothing
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **scenes,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **scenes,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/instances_val.json', metric=['bbox', 'segm'])
test_evaluator = val_evaluator
