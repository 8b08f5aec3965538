"""The backbones in every form, small, for checks of what they compute."""

from mmstvit.models import STViT, STViTR, STViTSwin, STViTSwin3D, T2TViT

PLAIN = dict(embed_dims=16, num_layers=5, num_heads=2, feedforward_channels=32)
SWIN = dict(embed_dims=8, depths=(1, 2, 6, 1), num_heads=(1, 1, 2, 2))

# The backbones, small, each with an input that leaves borders to be padded or tables to be resized.
BACKBONES = {
    'ViT': (STViT, dict(arch=PLAIN, img_size=32, patch_size=4, semantic_grid=None), (32, 38)),
    'STViT': (STViT, dict(arch=PLAIN, img_size=28, patch_size=4, stgm_layer=1, with_cls_token=True), (34, 32)),
    'STViT recover': (
        STViT,
        dict(arch=PLAIN, img_size=28, patch_size=4, stgm_layer=1, recover=True, out_type='featmap'),
        (34, 32),
    ),
    'Swin': (STViTSwin, dict(arch=SWIN, window_size=3, semantic_size=None), (96, 90)),
    'STViTSwin': (STViTSwin, dict(arch=SWIN, window_size=3, semantic_size=2), (96, 90)),
    'STViTR': (STViTR, dict(arch=SWIN, window_size=3, semantic_size=2), (96, 90)),
    'STViTR dense': (STViTR, dict(arch=SWIN, window_size=3, semantic_size=2, dense=True), (330, 90)),
    'STViTR published': (
        STViTR,
        dict(arch=SWIN, window_size=3, semantic_size=2, dense=True, key_mask='published'),
        (330, 90),
    ),
    'T2T-ViT transformer': (T2TViT, dict(arch=PLAIN, img_size=64, token_dims=8), (64, 80)),
    'T2T-ViT performer': (T2TViT, dict(arch=PLAIN, img_size=64, token_dims=8, t2t_type='performer'), (64, 80)),
    'STViTSwin 3D': (
        STViTSwin3D,
        dict(arch=SWIN, window_size=(2, 3, 3), semantic_size=(1, 2, 2)),
        (4, 96, 90),
    ),
}
