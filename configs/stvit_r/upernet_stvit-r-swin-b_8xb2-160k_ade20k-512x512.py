_base_ = ['./upernet_stvit-r-swin-t_8xb2-160k_ade20k-512x512.py']

model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint='work_dirs/stvit-r-swin-b_8xb128_in1k/epoch_300.pth')),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
