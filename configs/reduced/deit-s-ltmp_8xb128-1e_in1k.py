# DeiT-S as it is with LTMP, of which the thresholds alone are learnt, until the blocks cost half: one epoch at the
# learning rate and with the weight of the cost of the paper.
_base_ = ['./deit-s-tome_8xb128-30e_in1k.py']

model = dict(backbone=dict(reduce=dict(type='LTMP', budget=0.5)), budget=None, learn='thresholds', cost_weight=10.0)

optim_wrapper = dict(optimizer=dict(lr=5e-3))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=1)
