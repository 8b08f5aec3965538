# UPerNet on a narrow Swin, for trainings that begin with random weights.
heads = dict(norm_cfg=dict(type='BN', requires_grad=True), dropout_ratio=0.1, align_corners=False)

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True, pad_val=0, seg_pad_val=255),
    backbone=dict(
        type='mmstvit.STViTSwin',
        arch=dict(embed_dims=32, depths=(2, 2, 6, 2), num_heads=(1, 2, 4, 8)),
        window_size=4,
        semantic_size=None,
        drop_path_rate=0.0,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.1),
    ),
    decode_head=dict(
        type='UPerHead',
        in_channels=[32, 64, 128, 256],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=64,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0),
        **heads,
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=128,
        in_index=2,
        num_convs=1,
        concat_input=False,
        channels=32,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4),
        **heads,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
