# The counterpart of faster-rcnn_swin_bccd.py whose third stage goes from 5 x 5 image tokens a window to 2 x 2 semantic
# ones and back.
#   python tools/train.py configs/bccd/faster-rcnn_stvit-r_bccd.py
# Box AP 51.6 % (52.1, 50.7, 53.0, 50.4, 52.1, 50.3, 52.0, 51.8, 51.8 with seeds 0 to 8), 7 minutes on one core.
_base_ = ['./faster-rcnn_swin_bccd.py']

model = dict(
    backbone=dict(type='mmstvit.STViTR', dense=True, semantic_size=2, stem='patch', layer_scale_init_value=0.1)
)
