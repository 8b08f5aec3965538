# T2T-ViT on handwritten digits at 128 px: 8 x 8 tokens of overlapping neighbours.
#   python tools/train.py configs/digits/t2t-vit_digits.py
_base_ = ['./stvit-tiny_digits.py']

resize = dict(type='Resize', scale=128, interpolation='bicubic')
train_dataloader = dict(dataset=dict(pipeline=[resize, *_base_.train_pipeline[1:]]))
val_dataloader = dict(dataset=dict(pipeline=[resize, *_base_.test_pipeline[1:]]))
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
    )
)
