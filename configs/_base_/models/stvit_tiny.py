# STViT with 16 of 64 tokens on images of 32 px, for a CPU: four layers of width 80 behind a convolutional stem.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmstvit.STViT',
        arch=dict(embed_dims=80, num_layers=4, num_heads=2, feedforward_channels=320),
        img_size=32,
        tokenizer=dict(type='ConvStem', num_convs=2, depth=3),
        semantic_grid=(4, 4),
        stgm_layer=1,
        # 0.02, the usual, is made for widths of hundreds.
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.1),
    ),
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=10,
        in_channels=80,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
