# The counterpart of upernet_swin_1xb8-80e_camvid-360x480.py whose third stage goes from 7 x 7 image tokens a window to
# 3 x 3 semantic ones and back.
_base_ = ['./upernet_swin_1xb8-80e_camvid-360x480.py']

model = dict(
    backbone=dict(type='mmstvit.STViTR', dense=True, semantic_size=3, stem='patch', layer_scale_init_value=0.1)
)
