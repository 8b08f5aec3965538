# Mask R-CNN on the plain ViT-B. Begins with DeiT-B.
_base_ = ['./mask-rcnn_vit-s_sfp_1x_coco.py']

model = dict(
    backbone=dict(
        arch='deit-base',
        drop_path_rate=0.2,
        init_cfg=dict(
            checkpoint=(
                'https://mmassets.onedl.ai/mmclassification/v0/deit/deit-base_pt-16xb64_in1k_20220216-db63c16c.pth'
            ),
        ),
    ),
    neck=dict(in_channels=768),
)
