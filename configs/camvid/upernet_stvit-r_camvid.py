# The counterpart of upernet_swin_camvid.py whose third stage goes from 5 x 5 image tokens a window to 2 x 2 semantic
# ones and back.
#   python tools/train.py configs/camvid/upernet_stvit-r_camvid.py
_base_ = ['./upernet_swin_camvid.py']

model = dict(
    backbone=dict(type='mmstvit.STViTR', dense=True, semantic_size=2, stem='patch', layer_scale_init_value=0.1)
)
