# STViT-S with 16 of 196 semantic tokens from a DeiT-S classifier of ImageNet, which is downloaded, on CIFAR-10 enlarged to
# 224 px, for a GPU.
#   python tools/train.py configs/cifar10/stvit-s-ft_cifar10-224px.py --amp
_base_ = [
    '../_base_/models/stvit.py',
    '../_base_/datasets/cifar10_folders.py',
    '../_base_/schedules/cifar10_adamw.py',
    'mmpretrain::_base_/default_runtime.py',
]

load_from = 'https://mmassets.onedl.ai/mmclassification/v0/deit/deit-small_pt-4xb256_in1k_20220218-9425b9bb.pth'

model = dict(head=dict(num_classes=10), train_cfg=dict(probs=[0.25, 0.25]))
# Scaled as the images that the weights know.
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
enlarge = dict(type='Resize', scale=224, interpolation='bicubic')
train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(pipeline=[*_base_.train_pipeline[:-1], enlarge, _base_.train_pipeline[-1]]),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(pipeline=[_base_.test_pipeline[0], enlarge, _base_.test_pipeline[-1]]),
)
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=1e-4))
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1))
randomness = dict(seed=0)
