# Faster R-CNN on blood cells from random weights, with a plain Swin a third as wide as Swin-T: the dense baseline of
# faster-rcnn_stvit-r_bccd.py.
#   git clone --depth 1 https://github.com/Shenggan/BCCD_Dataset data/BCCD_Dataset
#   python tools/train.py configs/bccd/faster-rcnn_swin_bccd.py
# Box AP 50.6 % (52.1, 49.2, 51.2, 52.1, 49.3, 50.2, 49.7, 50.9, 50.9 with seeds 0 to 8), 8 minutes on one core.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/datasets/bccd.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/schedules/digits_adamw.py',
]

model = dict(
    # 320 x 240: windows of 5 x 5 fill the maps of stages 1 to 3.
    data_preprocessor=dict(mean=[188.0, 178.0, 182.0], std=[20.0] * 3, pad_size_divisor=1),
    backbone=dict(
        _delete_=True,
        type='mmstvit.STViTSwin',
        arch=dict(embed_dims=32, depths=(2, 2, 6, 2), num_heads=(1, 2, 4, 8)),
        window_size=5,
        semantic_size=None,
        drop_path_rate=0.0,
        out_indices=(1, 2, 3),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.1),
    ),
    neck=dict(in_channels=[64, 128, 256], out_channels=64, num_outs=3),
    # Platelets are 20 px wide, red cells 50, white ones 100.
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[3], ratios=[1.0], strides=[8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=64, featmap_strides=[8, 16, 32], finest_scale=32, roi_layer=dict(sampling_ratio=1)
        ),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=3, reg_class_agnostic=True),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=300, max_per_img=120), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=120), rcnn=dict(max_per_img=60)),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3, fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=16, val_interval=8)
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=0)
