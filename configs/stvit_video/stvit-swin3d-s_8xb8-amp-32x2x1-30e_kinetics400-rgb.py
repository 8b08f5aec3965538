_base_ = ['./stvit-swin3d-t_8xb8-amp-32x2x1-30e_kinetics400-rgb.py']

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.2,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmaction/v1.0/recognition/swin/swin_small_patch4_window7_224.pth'
        ),
    ),
)
