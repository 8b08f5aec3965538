# Few wide layers instead of many narrow ones.
_base_ = ['./t2t-vit-14_8xb64_in1k.py']

model = dict(backbone=dict(arch='14-wide'), head=dict(in_channels=768))
