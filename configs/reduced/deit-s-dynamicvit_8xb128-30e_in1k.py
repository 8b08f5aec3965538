# DeiT-S with DynamicViT, whose predictors and network are learnt beside DeiT-S itself: 0.7 of the tokens are kept in
# each of three layers, and the weights of the losses are the paper's.
_base_ = ['./deit-s-tome_8xb128-30e_in1k.py']

model = dict(
    backbone=dict(reduce=dict(_delete_=True, type='DynamicViT', keep_rate=0.7)),
    budget=None,
    logit_weight=0.5,
    cost_weight=2.0,
)
