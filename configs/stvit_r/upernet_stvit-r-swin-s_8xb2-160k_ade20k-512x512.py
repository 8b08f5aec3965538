_base_ = ['./upernet_stvit-r-swin-t_8xb2-160k_ade20k-512x512.py']

model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='work_dirs/stvit-r-swin-s_8xb128_in1k/epoch_300.pth')),
)
