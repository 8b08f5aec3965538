_base_ = ['./cascade-mask-rcnn_stvit-r-swin-s_fpn_ms-480-800-giou-4conv1f-3x_coco.py']

model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint='work_dirs/stvit-r-swin-b_8xb128_in1k/epoch_300.pth')),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
