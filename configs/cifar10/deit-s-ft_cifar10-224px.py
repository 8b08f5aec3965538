# The dense baseline of stvit-s-ft_cifar10-224px.py: the same transformer, all image tokens to the end.
_base_ = ['./stvit-s-ft_cifar10-224px.py']

model = dict(backbone=dict(semantic_grid=None))
