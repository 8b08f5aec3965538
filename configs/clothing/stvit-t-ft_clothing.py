# stvit-t_clothing.py from a DeiT-T classifier of ImageNet, which is downloaded; its head alone begins anew.
#   python tools/train.py configs/clothing/stvit-t-ft_clothing.py
_base_ = ['./stvit-t_clothing.py']

load_from = 'https://mmassets.onedl.ai/mmclassification/v0/deit/deit-tiny_pt-4xb256_in1k_20220218-13b382a0.pth'

optim_wrapper = dict(optimizer=dict(lr=1e-4))
warm_up = 2
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=warm_up, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=warm_up, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=20, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
