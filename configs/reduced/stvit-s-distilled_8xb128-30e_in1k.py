# STViT-S distilled from the DeiT-S that it begins from: the layers of the STGM begin as those they take the place of.
_base_ = ['../stvit/stvit-s-ft_8xb128-30e_in1k.py']

model = dict(
    type='mmstvit.DistilledClassifier',
    teacher_ckpt={{_base_.model.init_cfg.checkpoint}},
    teacher_config=dict(
        type='ImageClassifier',
        backbone=dict(type='mmstvit.STViT', arch='small', reduce=None, with_cls_token=True, out_type='cls_token'),
        head=dict(type='VisionTransformerClsHead', num_classes=1000, in_channels=384),
    ),
    token_weight=0.5,
)
