# Blood cells with boxes (github.com/Shenggan/BCCD_Dataset, MIT licence), in VOC's form: 205, 87 and 72 images of
# 640 x 480 pixels, here halved.
#   git clone --depth 1 https://github.com/Shenggan/BCCD_Dataset data/BCCD_Dataset
data_root = 'data/BCCD_Dataset/BCCD/'
# Told where the data is missing.
prepare_data = 'git clone --depth 1 https://github.com/Shenggan/BCCD_Dataset data/BCCD_Dataset'
cells = dict(
    type='XMLDataset',
    metainfo=dict(classes=('RBC', 'WBC', 'Platelets'), palette=[(220, 20, 60), (60, 60, 200), (250, 170, 30)]),
    data_root=data_root,
    data_prefix=dict(sub_data_root=''),
)

resize = dict(type='Resize', scale=(320, 240), keep_ratio=True)
# A cell has no upper side.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    resize,
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PhotoMetricDistortion', contrast_range=(0.8, 1.2), saturation_range=(0.8, 1.2), hue_delta=9),
    dict(type='PackDetInputs'),
]
# The metric takes the boxes from the samples: VOC's form has no file of all of them.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances'),
    ),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=0,  # a worker would take a core from training
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **cells,
        ann_file='ImageSets/Main/train.txt',
        filter_cfg=dict(bbox_min_size=2),  # one box has no area, which would make the loss NaN
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**cells, ann_file='ImageSets/Main/val.txt', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**cells, ann_file='ImageSets/Main/test.txt', test_mode=True, pipeline=test_pipeline),
)

val_evaluator = dict(type='CocoMetric', metric='bbox')
test_evaluator = val_evaluator
