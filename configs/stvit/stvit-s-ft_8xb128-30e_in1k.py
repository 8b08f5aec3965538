# From mmpretrain's DeiT-S: its class token and head go on, so training starts near the checkpoint's accuracy; the
# global cluster centres alone are new. A tenth of the learning rate, 30 epochs, one of them warm-up.
_base_ = ['./stvit-s_8xb128_in1k.py']

model = dict(
    backbone=dict(with_cls_token=True, out_type='cls_token'),
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://mmassets.onedl.ai/mmclassification/v0/deit/deit-small_pt-4xb256_in1k_20220218-9425b9bb.pth',
    ),
)

optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=1),
]
train_cfg = dict(max_epochs=30)
