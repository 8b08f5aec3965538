# mask-rcnn_vit_digits.py with fewer tokens. A checkpoint of the one can be tested with the other as it is.
_base_ = ['./mask-rcnn_vit_digits.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.Reduced',
        backbone=_base_.model.backbone,
        reduce=dict(type='ToMeSD', keep_rate=0.25),
    ),
)
