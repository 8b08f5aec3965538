# Faster R-CNN on the plain ViT-S, for boxes alone: the dense baseline of faster-rcnn_vit-s-tome_sfp_1x_coco.py.
_base_ = [
    '../_base_/models/mask-rcnn_vit-s_sfp.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/coco_adamw_1x.py',
    'mmdet::_base_/default_runtime.py',
]

model = dict(type='FasterRCNN', roi_head=dict(mask_roi_extractor=None, mask_head=None))

optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.cls_token': dict(decay_mult=0.0)}))
