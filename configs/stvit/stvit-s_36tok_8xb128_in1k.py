_base_ = ['./stvit-s_8xb128_in1k.py']

model = dict(backbone=dict(semantic_grid=(6, 6)))
