# The dense baseline of stvit-s_cifar10.py: the same transformer, all image tokens to the end.
_base_ = ['./stvit-s_cifar10.py']

model = dict(backbone=dict(semantic_grid=None))
