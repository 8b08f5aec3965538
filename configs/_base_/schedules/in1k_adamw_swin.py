# Swin's schedule on ImageNet-1k: 300 epochs, learning rate 5e-4 for each 512 images of the batch, 20 epochs warm-up.
_base_ = ['mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py']

optim_wrapper = dict(
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(flat_decay_mult=0.0, custom_keys={'.global_centers': dict(decay_mult=0.0)}),
)
