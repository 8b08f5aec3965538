# stvit-s-ft_8xb128-30e_in1k.py from mmpretrain's DeiT-T.
_base_ = ['./stvit-s-ft_8xb128-30e_in1k.py']

model = dict(
    backbone=dict(arch='tiny'),
    head=dict(in_channels=192),
    init_cfg=dict(
        checkpoint='https://mmassets.onedl.ai/mmclassification/v0/deit/deit-tiny_pt-4xb256_in1k_20220218-13b382a0.pth'
    ),
)
