_base_ = [
    '../_base_/models/stvit_swin.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/schedules/in1k_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]
