_base_ = ['./t2t-vit-14_8xb64_in1k.py']

model = dict(backbone=dict(arch='10'), head=dict(in_channels=256))
