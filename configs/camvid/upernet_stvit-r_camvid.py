# The counterpart of upernet_swin_camvid.py whose third stage goes from 5 x 5 image tokens a window to 2 x 2 semantic
# ones and back.
#   python tools/train.py configs/camvid/upernet_stvit-r_camvid.py
# mIoU 36.5 % (36.6, 36.6, 36.2 with seeds 0, 1, 2), 21 minutes on one core.
_base_ = ['./upernet_swin_camvid.py']

model = dict(
    backbone=dict(type='mmstvit.STViTR', dense=True, semantic_size=2, stem='patch', layer_scale_init_value=0.1)
)
