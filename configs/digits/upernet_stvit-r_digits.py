# The counterpart of upernet_swin_digits.py whose third stage goes from 4 x 4 image tokens a window to 2 x 2 semantic
# ones and back.
_base_ = ['./upernet_swin_digits.py']

model = dict(
    backbone=dict(type='mmstvit.STViTR', dense=True, semantic_size=2, stem='patch', layer_scale_init_value=0.1)
)
