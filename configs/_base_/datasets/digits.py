# Handwritten digits of scikit-learn (1,797 scans of 8 x 8), a quarter held out, enlarged to 32 x 32.
data_preprocessor = dict(num_classes=10, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)

resize = dict(type='Resize', scale=32, interpolation='bicubic')

train_pipeline = [
    resize,
    dict(type='NumpyToPIL', to_rgb=False),
    dict(
        type='torchvision/RandomAffine',
        degrees=6,
        translate=(0.05, 0.05),
        scale=(0.92, 1.08),
        shear=4,
        interpolation='bilinear',
    ),
    dict(type='PILToNumpy', to_bgr=False),
    dict(type='PackInputs'),
]

test_pipeline = [resize, dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=32,
    num_workers=0,  # a worker would take a core from training, and preparing these images is nothing
    dataset=dict(type='mmstvit.Digits', split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=150,
    num_workers=0,
    dataset=dict(type='mmstvit.Digits', split='val', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=1)

test_dataloader = val_dataloader
test_evaluator = val_evaluator
