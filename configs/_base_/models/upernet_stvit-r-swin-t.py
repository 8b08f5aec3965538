# UPerNet on the dense STViT-R: the heads that mmseg puts on Swin.
_base_ = ['mmseg::_base_/models/upernet_swin.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.STViTR',
        arch='tiny',
        dense=True,
        drop_path_rate=0.3,
        # What training of the classification config leaves; name another file with
        # --cfg-options model.backbone.init_cfg.checkpoint=FILE
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/stvit-r-swin-t_8xb128_in1k/epoch_300.pth'),
    ),
)
