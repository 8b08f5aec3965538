_base_ = ['mmpretrain::t2t_vit/t2t-vit-t-19_8xb64_in1k.py']

model = dict(backbone=dict(_delete_=True, type='mmstvit.T2TViT', arch='t-19', drop_path_rate=0.1))
