# COCO with Swin's multi-scale training: the short side between 480 and 800 px, half of the images cropped first.
_base_ = ['mmdet::_base_/datasets/coco_instance.py']

sizes = [(1333, short) for short in range(480, 801, 32)]
resize = dict(type='RandomChoiceResize', scales=sizes, keep_ratio=True)
crop = [
    dict(type='RandomChoiceResize', scales=[(1333, 400), (1333, 500), (1333, 600)], keep_ratio=True),
    dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoice', transforms=[[resize], [*crop, resize]]),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
