_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/coco_adamw_1x.py',
    'mmdet::_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.STViTR',
        arch='tiny',
        dense=True,
        drop_path_rate=0.2,
        out_indices=(1, 2, 3),  # the pyramid begins at stride 8; a norm of another map would have no gradient
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/stvit-r-swin-t_8xb128_in1k/epoch_300.pth'),
    ),
    neck=dict(in_channels=[192, 384, 768], start_level=0),
)
