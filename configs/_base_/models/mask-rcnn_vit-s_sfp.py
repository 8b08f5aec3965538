# Mask R-CNN on mmpretrain's plain ViT-S, with a pyramid made of its one map, as ViTDet has it. Begins with DeiT-S.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='deit-small',
        img_size=(800, 1216),
        out_type='featmap',
        final_norm=False,  # the pyramid has norms of its own
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=(
                'https://mmassets.onedl.ai/mmclassification/v0/deit/deit-small_pt-4xb256_in1k_20220218-9425b9bb.pth'
            ),
            prefix='backbone.',
        ),
    ),
    neck=dict(_delete_=True, type='mmstvit.SimpleFeaturePyramid', in_channels=384, out_channels=256, num_outs=5),
)
