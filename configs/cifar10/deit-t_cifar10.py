# The dense baseline of stvit-t_cifar10.py: the same transformer, all image tokens to the end.
_base_ = ['./stvit-t_cifar10.py']

model = dict(backbone=dict(semantic_grid=None))
