# Mask R-CNN on scenes of handwritten digits, with a plain ViT of mmpretrain: the dense baseline of those that
# have fewer tokens.
#   python tools/dataset_converters/digits_scenes.py
#   python tools/train.py configs/digits/mask-rcnn_vit_digits.py
_base_ = ['./mask-rcnn_swin_digits.py']

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
    neck=dict(_delete_=True, type='mmstvit.SimpleFeaturePyramid', in_channels=96, out_channels=64, num_outs=4),
    # Patches of 8 px in the place of 16: the levels have half of the strides that ViTDet's have.
    rpn_head=dict(anchor_generator=dict(scales=[12], strides=[2, 4, 8, 16])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=[2, 4, 8, 16]),
        mask_roi_extractor=dict(featmap_strides=[2, 4, 8, 16]),
    ),
)

optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0), '.cls_token': dict(decay_mult=0.0)}),
)
