# STViT on the digits, distilled from the dense network that it begins from, in a tenth of the epochs:
#   python tools/train.py configs/digits/vit-tiny_digits.py
#   python tools/train.py configs/reduced/stvit-tiny-distilled_digits.py
_base_ = ['../digits/stvit-tiny_digits.py']

load_from = 'work_dirs/vit-tiny_digits/epoch_40.pth'
model = dict(
    type='mmstvit.DistilledClassifier', teacher_ckpt=load_from, teacher_config='vit-tiny_digits', token_weight=0.5
)

optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=4)
