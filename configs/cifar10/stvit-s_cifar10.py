# The same as stvit-t_cifar10.py in the width of DeiT-S.
_base_ = ['./stvit-t_cifar10.py']

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
train_cfg = dict(max_epochs=40)
