# STViT on the DeiT layout with 16 semantic tokens; the configs that inherit it choose the size.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmstvit.STViT', arch='small', img_size=224, patch_size=16, semantic_grid=(4, 4), drop_path_rate=0.1
    ),
    neck=None,
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=1000,
        in_channels=384,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
