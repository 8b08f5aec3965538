# The counterpart of swin_cifar10.py whose third stage goes to 4 x 4 semantic tokens and back to 8 x 8 image tokens.
# Top-1 61.2 % (61.7, 60.0, 61.8 with seeds 0, 1, 2), 27 minutes on one core.
_base_ = ['./swin_cifar10.py']

model = dict(backbone=dict(type='mmstvit.STViTR', semantic_size=2, stem='patch', layer_scale_init_value=0.1))
