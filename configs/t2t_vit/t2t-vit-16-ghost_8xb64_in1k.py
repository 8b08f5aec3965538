# Half of the features are scaled copies of the other half, as in GhostNet.
_base_ = ['./t2t-vit-14_8xb64_in1k.py']

model = dict(backbone=dict(arch='16-ghost'))
