# 32 narrow heads instead of 6, as in ResNeXt.
_base_ = ['./t2t-vit-14_8xb64_in1k.py']

model = dict(backbone=dict(arch='14-resnext'))
