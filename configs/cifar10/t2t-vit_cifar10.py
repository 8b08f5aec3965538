# T2T-ViT on CIFAR-10, for a CPU: 8 x 8 tokens of overlapping neighbours, from images enlarged to 128 px, as its stride
# is 16.
#   python tools/train.py configs/cifar10/t2t-vit_cifar10.py
# Top-1 59.9 % (60.8, 59.5, 59.3 with seeds 0, 1, 2), 37 minutes on one core.
_base_ = ['./vit-tiny_cifar10.py']

enlarge = dict(type='Resize', scale=128, interpolation='bicubic')
train_dataloader = dict(dataset=dict(pipeline=[*_base_.train_pipeline[:-1], enlarge, _base_.train_pipeline[-1]]))
val_dataloader = dict(dataset=dict(pipeline=[_base_.test_pipeline[0], enlarge, _base_.test_pipeline[-1]]))
test_dataloader = val_dataloader

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.T2TViT',
        arch=dict(embed_dims=64, num_layers=6, num_heads=2, feedforward_channels=256),
        img_size=128,
        t2t_type='performer',
        token_dims=16,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.1),
    ),
    head=dict(in_channels=64),
)

train_cfg = dict(max_epochs=5)  # six minutes each on one core
