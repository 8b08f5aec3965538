# Semantic tokens on T2T-ViT_t-14: four of its 14 layers on the image tokens, two make 16 semantic tokens of them, and
# eight go on with those.
_base_ = ['../t2t_vit/t2t-vit-t-14_8xb64_in1k.py']

model = dict(backbone=dict(semantic_grid=(4, 4)))

optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'global_centers': dict(decay_mult=0.0)}))
