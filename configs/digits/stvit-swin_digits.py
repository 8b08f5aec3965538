# The counterpart of swin_digits.py whose third stage goes over from 6 x 6 image tokens to 4 x 4 semantic ones.
_base_ = ['./swin_digits.py']

model = dict(backbone=dict(semantic_size=2))
