# stvit-s-ft_8xb128-30e_in1k.py from mmpretrain's DeiT-B.
_base_ = ['./stvit-s-ft_8xb128-30e_in1k.py']

model = dict(
    backbone=dict(arch='base'),
    head=dict(in_channels=768),
    init_cfg=dict(
        checkpoint='https://mmassets.onedl.ai/mmclassification/v0/deit/deit-base_pt-16xb64_in1k_20220216-db63c16c.pth'
    ),
)
