# DeiT's data recipe: RandAugment, random erasing and bicubic resizing as mmpretrain has them for Swin and DeiT, and
# each image three times in a row across the processes (repeated augmentation).
_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py']

train_dataloader = dict(batch_size=128, sampler=dict(_delete_=True, type='RepeatAugSampler', shuffle=True))
val_dataloader = dict(batch_size=128)
test_dataloader = dict(batch_size=128)
