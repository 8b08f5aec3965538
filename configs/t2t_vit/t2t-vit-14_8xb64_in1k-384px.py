# The recipe of t2t-vit-14_8xb64_in1k.py at 384 px; testing keeps its ratio of the crop to the resized image.
_base_ = ['./t2t-vit-14_8xb64_in1k.py']

train_pipeline = [
    _base_.train_pipeline[0],
    dict(type='RandomResizedCrop', scale=384, backend='pillow', interpolation='bicubic'),
    *_base_.train_pipeline[2:],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='ResizeEdge', scale=426, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=384),
    _base_.test_pipeline[-1],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

model = dict(backbone=dict(img_size=384))
