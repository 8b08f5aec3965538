# Faster R-CNN on blood cells from random weights, with a plain ViT of mmpretrain and a pyramid of its one map: the
# dense baseline of faster-rcnn_vit-tome_bccd.py.
#   python tools/train.py configs/bccd/faster-rcnn_vit_bccd.py
_base_ = ['./faster-rcnn_swin_bccd.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
        img_size=(240, 320),
        patch_size=16,
        out_type='featmap',
        final_norm=False,  # the pyramid has norms of its own
    ),
    neck=dict(_delete_=True, type='mmstvit.SimpleFeaturePyramid', in_channels=192, out_channels=64, num_outs=4),
    rpn_head=dict(anchor_generator=dict(strides=[4, 8, 16, 32])),
    roi_head=dict(bbox_roi_extractor=dict(featmap_strides=[4, 8, 16, 32])),
)

optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0), '.cls_token': dict(decay_mult=0.0)}),
)
