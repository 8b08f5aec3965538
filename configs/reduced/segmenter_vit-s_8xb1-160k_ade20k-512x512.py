# mmseg's Segmenter on ViT-S, with fewer tokens: each block merges the most similar, and the head gets a token
# for each patch. A checkpoint of mmseg's own config of this name can be tested with it as it is.
_base_ = ['mmseg::segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py']

pretrained = _base_.model.pretrained
model = dict(
    pretrained=None,  # it would be given to the wrapper
    backbone=dict(
        _delete_=True,
        type='mmstvit.Reduced',
        backbone=dict(_base_.model.backbone, init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
        reduce=dict(type='ToMe', keep_rate=0.92),
    ),
)

auto_scale_lr = dict(enable=False, base_batch_size=8)
