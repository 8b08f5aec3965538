# The same as stvit-s-ft_cifar10-224px.py from DeiT-T.
_base_ = ['./stvit-s-ft_cifar10-224px.py']

load_from = 'https://mmassets.onedl.ai/mmclassification/v0/deit/deit-tiny_pt-4xb256_in1k_20220218-13b382a0.pth'

model = dict(backbone=dict(arch='tiny'), head=dict(in_channels=192))
