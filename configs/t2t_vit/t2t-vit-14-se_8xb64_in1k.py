# Squeeze-excitation after each attention.
_base_ = ['./t2t-vit-14_8xb64_in1k.py']

model = dict(backbone=dict(arch='14-se'))
