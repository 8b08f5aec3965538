# The same as vit-tiny-tome_digits.py with DynamicViT, which keeps 0.6 of the tokens in each of three layers: its
# predictors and the network are learnt. Predictors begin at random, which 4 epochs do not mend.
_base_ = ['./vit-tiny-tome_digits.py']

model = dict(
    backbone=dict(reduce=dict(_delete_=True, type='DynamicViT', keep_rate=0.6)),
    budget=None,
    cost_weight=2.0,
)

train_cfg = dict(max_epochs=20)
