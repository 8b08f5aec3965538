# The dense network of the digits with ToMe, distilled from itself with all tokens, in a tenth of its epochs:
#   python tools/train.py configs/digits/vit-tiny_digits.py
#   python tools/train.py configs/reduced/vit-tiny-tome_digits.py
_base_ = ['../digits/vit-tiny_digits.py']

load_from = 'work_dirs/vit-tiny_digits/epoch_40.pth'
model = dict(
    type='mmstvit.DistilledClassifier',
    backbone=dict(
        _delete_=True,
        type='mmstvit.Reduced',
        backbone={{_base_.model.backbone}},
        reduce=dict(type='ToMe', budget=0.5),
    ),
    teacher_ckpt=load_from,
    budget=(0.35, 1.0),
    token_weight=0.5,
)

optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=4)
