# mask-rcnn_vit-s_sfp_1x_coco.py whose tokens are merged to a quarter for the attention of each block.
_base_ = ['./mask-rcnn_vit-s_sfp_1x_coco.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.Reduced',
        backbone=_base_.model.backbone,
        reduce=dict(type='ToMeSD', keep_rate=0.25),
    ),
)
