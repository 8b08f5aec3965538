# Something-Something v2, from what training on Kinetics-400 leaves: windows of all 16 steps of time, 32 frames drawn
# evenly from the video, one clip with three crops in the test, as Video Swin. Its RandAugment is left out: mmaction2
# takes it from pytorchvideo, which does not import beside a current torchvision.
#   bash tools/dist_train.sh configs/stvit_video/stvit-swin3d-b_8xb8-amp-u32-60e_ssv2-rgb.py 8
_base_ = ['./stvit-swin3d-b_8xb8-amp-32x2x1-30e_kinetics400-rgb.py']

model = dict(
    backbone=dict(window_size=(16, 7, 7), semantic_size=(8, 4, 4), drop_path_rate=0.4, init_cfg=None),
    cls_head=dict(num_classes=174, loss_cls=dict(type='CrossEntropyLoss'), label_smooth_eps=0.1),
)
# Another file: --cfg-options load_from=FILE
load_from = 'work_dirs/stvit-swin3d-b_8xb8-amp-32x2x1-30e_kinetics400-rgb/epoch_30.pth'

read = [dict(type='OpenCVInit'), dict(type='UniformSample', clip_len=32)]
read_test = [dict(type='OpenCVInit'), dict(type='UniformSample', clip_len=32, test_mode=True)]
decode = [dict(type='OpenCVDecode'), dict(type='Resize', scale=(-1, 256))]
pack = [dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')]

# No flip: many classes tell left from right.
train_pipeline = [
    *read,
    *decode,
    dict(type='RandomResizedCrop'),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='ColorJitter', hue=0),  # mmaction2's shift of the hue overflows with NumPy 2
    dict(type='RandomErasing', erase_prob=0.25, mode='rand'),
    *pack,
]
val_pipeline = [*read_test, *decode, dict(type='CenterCrop', crop_size=224), *pack]
test_pipeline = [
    *read_test,
    dict(type='OpenCVDecode'),
    dict(type='Resize', scale=(-1, 224)),
    dict(type='ThreeCrop', crop_size=224),
    *pack,
]
videos = dict(video='data/sthv2/videos')
train_dataloader = dict(
    dataset=dict(ann_file='data/sthv2/sthv2_train_list_videos.txt', data_prefix=videos, pipeline=train_pipeline)
)
val_list = 'data/sthv2/sthv2_val_list_videos.txt'
val_dataloader = dict(dataset=dict(ann_file=val_list, data_prefix=videos, pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(ann_file=val_list, data_prefix=videos, pipeline=test_pipeline))

optim_wrapper = dict(optimizer=dict(lr=3e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=2.5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=60, eta_min=0, by_epoch=True, begin=0, end=60),
]
train_cfg = dict(max_epochs=60)
