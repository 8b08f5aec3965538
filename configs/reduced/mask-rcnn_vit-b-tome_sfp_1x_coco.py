# mask-rcnn_vit-b_sfp_1x_coco.py, each block of which merges the most similar of its tokens: 37 % are left after the
# last. A checkpoint of the one can be tested with the other as it is.
_base_ = ['./mask-rcnn_vit-b_sfp_1x_coco.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.Reduced',
        backbone=_base_.model.backbone,
        # A share, which suits images of any size.
        reduce=dict(type='ToMe', keep_rate=0.92),
    ),
)
