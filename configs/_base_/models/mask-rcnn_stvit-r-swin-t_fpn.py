# Mask R-CNN on the dense STViT-R.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.STViTR',
        arch='tiny',
        dense=True,
        drop_path_rate=0.2,
        # What training of the classification config leaves; name another file with
        # --cfg-options model.backbone.init_cfg.checkpoint=FILE
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/stvit-r-swin-t_8xb128_in1k/epoch_300.pth'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
