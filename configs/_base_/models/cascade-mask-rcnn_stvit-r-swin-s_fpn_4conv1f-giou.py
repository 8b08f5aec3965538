# Cascade Mask R-CNN as the authors of Swin and of STViT-R have it: in each box head four convolutions with SyncBN and
# one linear layer, boxes for each class, GIoU.
_base_ = ['mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py']

head = dict(
    type='ConvFCBBoxHead',
    num_shared_convs=4,
    num_shared_fcs=1,
    in_channels=256,
    conv_out_channels=256,
    fc_out_channels=1024,
    roi_feat_size=7,
    num_classes=80,
    reg_class_agnostic=False,
    reg_decoded_bbox=True,
    norm_cfg=dict(type='SyncBN', requires_grad=True),
    loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
)
coder = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4)

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.STViTR',
        arch='small',
        dense=True,
        key_mask='published',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/stvit-r-swin-s_8xb128_in1k/epoch_300.pth'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
    roi_head=dict(
        bbox_head=[
            dict(**head, bbox_coder=dict(**coder, target_stds=[0.1, 0.1, 0.2, 0.2])),
            dict(**head, bbox_coder=dict(**coder, target_stds=[0.05, 0.05, 0.1, 0.1])),
            dict(**head, bbox_coder=dict(**coder, target_stds=[0.033, 0.033, 0.067, 0.067])),
        ]
    ),
)
