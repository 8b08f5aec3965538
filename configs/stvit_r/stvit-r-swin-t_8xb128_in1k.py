# STViT-R as in the paper: the first STGM layer adds to the pooled tokens, the second adds global cluster centres.
_base_ = [
    '../_base_/models/stvit_swin.py',
    '../_base_/datasets/imagenet_bs128_swin_224.py',
    '../_base_/schedules/in1k_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(backbone=dict(type='mmstvit.STViTR', use_global=True))
