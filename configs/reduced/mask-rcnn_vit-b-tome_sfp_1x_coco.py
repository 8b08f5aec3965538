# mask-rcnn_vit-b_sfp_1x_coco.py, each block of which merges the most similar of its tokens: 36 % are left after the last. Its
# checkpoints are those of the other, which can be tested with it as they are.
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
