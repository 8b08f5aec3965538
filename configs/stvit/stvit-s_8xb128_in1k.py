_base_ = [
    '../_base_/models/stvit.py',
    '../_base_/datasets/imagenet_bs128_deit_224.py',
    '../_base_/schedules/in1k_adamw_deit.py',
    'mmpretrain::_base_/default_runtime.py',
]
