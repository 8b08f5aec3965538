# mask-rcnn_vit-b_sfp_1x_coco.py with a quarter of the tokens from the sixth block on; each patch gets its features back
# from the clusters nearest to it. A checkpoint of the one can be tested with the other as it is.
_base_ = ['./mask-rcnn_vit-b_sfp_1x_coco.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.Reduced',
        backbone=_base_.model.backbone,
        reduce=dict(type='Expedite', keep_rate=0.25),
    ),
)
