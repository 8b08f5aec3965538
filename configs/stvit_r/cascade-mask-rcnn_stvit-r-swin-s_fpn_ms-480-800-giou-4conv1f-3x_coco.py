# The published detector. Its weights were trained with key_mask='published', so its published files test with that; for
# a training of your own take --cfg-options model.backbone.key_mask=exact
_base_ = [
    '../_base_/models/cascade-mask-rcnn_stvit-r-swin-s_fpn_4conv1f-giou.py',
    '../_base_/datasets/coco_instance_ms-480-800.py',
    '../_base_/schedules/coco_adamw_3x.py',
    'mmdet::_base_/default_runtime.py',
]
