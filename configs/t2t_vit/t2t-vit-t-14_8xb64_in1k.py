# T2T-ViT_t-14 with mmpretrain's recipe, which is the authors': 310 epochs, ten of them warm-up and ten cool-down, EMA.
_base_ = ['mmpretrain::t2t_vit/t2t-vit-t-14_8xb64_in1k.py']

model = dict(backbone=dict(_delete_=True, type='mmstvit.T2TViT', arch='t-14', drop_path_rate=0.1))
