# UPerNet on scenes of handwritten digits, with a plain ViT of mmpretrain and a pyramid made of its one map: the dense
# baseline of upernet_vit-tome_digits.py.
_base_ = ['./upernet_swin_digits.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=96, num_layers=8, num_heads=3, feedforward_channels=384),
        img_size=128,
        patch_size=8,
        out_type='featmap',
        final_norm=False,  # the pyramid has norms of its own
    ),
    neck=dict(type='mmstvit.SimpleFeaturePyramid', in_channels=96, out_channels=32, num_outs=4),
    decode_head=dict(in_channels=[32] * 4, channels=32),
    auxiliary_head=dict(in_channels=32),
)

optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0), '.cls_token': dict(decay_mult=0.0)}),
)
