# The counterpart of swin_cifar10.py whose third stage goes over from 4 x 4 image tokens to 2 x 2 semantic ones.
_base_ = ['./swin_cifar10.py']

model = dict(backbone=dict(semantic_size=2))
