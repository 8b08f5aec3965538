# Each layer joins 64 channels to its input, as in DenseNet: 128 to 584 of them.
_base_ = ['./t2t-vit-14_8xb64_in1k.py']

model = dict(backbone=dict(arch='19-dense'), head=dict(in_channels=584))
