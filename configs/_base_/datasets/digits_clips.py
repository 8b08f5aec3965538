# Clips of moving handwritten digits, made by tools/dataset_converters/digits_clips.py: 8 frames, shown at 48 px.
data_root = 'data/digits_clips/'
prepare_data = 'python tools/dataset_converters/digits_clips.py'  # told where the data is missing
classes = ('left', 'right', 'anticlockwise', 'clockwise', 'shrinking', 'growing', 'swinging', 'pulsing')

frames = [
    dict(type='Resize', scale=(48, 48), keep_ratio=False),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
# Nothing is mirrored or played backwards: it would be another class.
train_pipeline = [
    dict(type='OpenCVInit'),
    dict(type='SampleFrames', clip_len=8, frame_interval=1, num_clips=1),
    dict(type='OpenCVDecode'),
    dict(type='RandomResizedCrop', area_range=(0.7, 1.0), aspect_ratio_range=(0.9, 1.1)),
    *frames,
]
test_pipeline = [
    dict(type='OpenCVInit'),
    dict(type='SampleFrames', clip_len=8, frame_interval=1, num_clips=1, test_mode=True),
    dict(type='OpenCVDecode'),
    *frames,
]

clips = dict(type='VideoDataset', metainfo=dict(classes=classes), data_prefix=dict(video=data_root))

train_dataloader = dict(
    batch_size=16,
    num_workers=0,  # a worker would take a core from training, and reading these clips is little work
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**clips, ann_file=data_root + 'train.txt', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**clips, ann_file=data_root + 'val.txt', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='AccMetric')
test_evaluator = val_evaluator
