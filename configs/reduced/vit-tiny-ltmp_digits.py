# The same as vit-tiny-tome_digits.py with LTMP, of which the thresholds alone are learnt, until the blocks cost half:
# the network stays as it was.
_base_ = ['./vit-tiny-tome_digits.py']

model = dict(backbone=dict(reduce=dict(type='LTMP', budget=0.5)), budget=None, learn='thresholds', cost_weight=10.0)

optim_wrapper = dict(optimizer=dict(lr=1e-2))
