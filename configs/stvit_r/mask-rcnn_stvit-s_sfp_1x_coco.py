# Mask R-CNN on the plain transformer: four layers on the image, six on 16 x 16 semantic tokens, recovery, and a pyramid
# made of the one map. Begins with mmpretrain's DeiT-S.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_adamw_1x.py',
    'mmdet::_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.STViT',
        arch='small',
        img_size=(800, 1216),
        semantic_grid=(16, 16),
        recover=True,
        out_type='featmap',
        final_norm=False,  # the pyramid has norms of its own
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=(
                'https://mmassets.onedl.ai/mmclassification/v0/deit/deit-small_pt-4xb256_in1k_20220218-9425b9bb.pth'
            ),
        ),
    ),
    neck=dict(_delete_=True, type='mmstvit.SimpleFeaturePyramid', in_channels=384, out_channels=256, num_outs=5),
)
