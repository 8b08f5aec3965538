# The counterpart of swin3d_digits.py whose third stage goes over to semantic tokens in space and time.
_base_ = ['./swin3d_digits.py']

model = dict(backbone=dict(semantic_size=(2, 2, 2)))
