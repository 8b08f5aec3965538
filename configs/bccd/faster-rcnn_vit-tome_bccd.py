# faster-rcnn_vit_bccd.py with fewer tokens. A checkpoint of the one can be tested with the other as it is.
#   python tools/test.py configs/bccd/faster-rcnn_vit-tome_bccd.py work_dirs/faster-rcnn_vit_bccd/epoch_16.pth
_base_ = ['./faster-rcnn_vit_bccd.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.Reduced',
        backbone=_base_.model.backbone,
        reduce=dict(type='ToMe', keep_rate=0.88),
    ),
)
