# Mask R-CNN on the plain ViT-S: the dense baseline of those with fewer tokens.
_base_ = [
    '../_base_/models/mask-rcnn_vit-s_sfp.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_adamw_1x.py',
    'mmdet::_base_/default_runtime.py',
]

optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.cls_token': dict(decay_mult=0.0)}))
