# Video Swin-T that goes over to 4 x 4 x 4 semantic tokens a window in stage 3, on Kinetics-400: the recipe, data and
# test-time views (4 clips x 3 crops) of mmaction2's Video Swin, from the same weights of ImageNet.
#   bash tools/dist_train.sh configs/stvit_video/stvit-swin3d-t_8xb8-amp-32x2x1-30e_kinetics400-rgb.py 8
_base_ = ['mmaction::recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.STViTSwin3D',
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmaction/v1.0/recognition/swin/swin_tiny_patch4_window7_224.pth',
        ),
    ),
)


def by_opencv(pipeline):
    return [dict(step, type=step['type'].replace('Decord', 'OpenCV')) for step in pipeline]


# mmaction2's config reads with decord, which is no longer maintained.
train_pipeline = by_opencv(_base_.train_pipeline)
val_pipeline = by_opencv(_base_.val_pipeline)
test_pipeline = by_opencv(_base_.test_pipeline)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

optim_wrapper = dict(paramwise_cfg=dict(global_centers=dict(decay_mult=0.0)))
