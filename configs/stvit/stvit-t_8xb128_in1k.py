_base_ = ['./stvit-s_8xb128_in1k.py']

model = dict(backbone=dict(arch='tiny'), head=dict(in_channels=192))
