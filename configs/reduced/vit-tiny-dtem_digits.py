# The same as vit-tiny-tome_digits.py with DTEM, of which the embeddings for the matching alone are learnt: the network
# stays as it was.
_base_ = ['./vit-tiny-tome_digits.py']

model = dict(backbone=dict(reduce=dict(type='DTEM')), learn='embedding')

optim_wrapper = dict(optimizer=dict(lr=1e-3))
