# The counterpart of swin_cifar10.py whose third stage goes over from 8 x 8 image tokens to 4 x 4 semantic ones.
_base_ = ['./swin_cifar10.py']

model = dict(backbone=dict(semantic_size=2))
