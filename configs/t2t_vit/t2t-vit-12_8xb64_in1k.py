_base_ = ['./t2t-vit-14_8xb64_in1k.py']

model = dict(backbone=dict(arch='12'), head=dict(in_channels=256))
