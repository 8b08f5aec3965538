# mask-rcnn_vit-s_sfp_1x_coco.py with a quarter of the tokens after six blocks; each patch gets its features back from the
# clusters nearest to it. Its checkpoints are those of the other, which can be tested with it as they are.
_base_ = ['./mask-rcnn_vit-s_sfp_1x_coco.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.Reduced',
        backbone=_base_.model.backbone,
        reduce=dict(type='Expedite', keep_rate=0.25),
    ),
)
