# DeiT-S with ToMe, distilled from itself with all tokens: a budget from 0.35 to 1 is drawn for each step, so that one
# checkpoint serves all of them. Validated at half of the layers' multiply-adds; another one for a test:
#   mmstvit test CONFIG CHECKPOINT --cfg-options model.backbone.reduce.budget=0.7
_base_ = ['../stvit/stvit-s-ft_8xb128-30e_in1k.py']

model = dict(
    type='mmstvit.DistilledClassifier',
    backbone=dict(
        _delete_=True,
        type='mmstvit.Reduced',
        backbone=dict(
            type='mmstvit.STViT',
            arch='small',
            reduce=None,
            with_cls_token=True,
            out_type='cls_token',
            drop_path_rate=0.1,
        ),
        reduce=dict(type='ToMe', budget=0.5),
    ),
    teacher_ckpt={{_base_.model.init_cfg.checkpoint}},
    budget=(0.35, 1.0),
    token_weight=0.5,
)
