_base_ = ['./mask-rcnn_stvit-r-swin-t_fpn_ms-480-800-3x_coco.py']

model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='work_dirs/stvit-r-swin-s_8xb128_in1k/epoch_300.pth'))
)
