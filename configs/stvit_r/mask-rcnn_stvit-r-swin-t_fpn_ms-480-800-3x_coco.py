_base_ = [
    '../_base_/models/mask-rcnn_stvit-r-swin-t_fpn.py',
    '../_base_/datasets/coco_instance_ms-480-800.py',
    '../_base_/schedules/coco_adamw_3x.py',
    'mmdet::_base_/default_runtime.py',
]
