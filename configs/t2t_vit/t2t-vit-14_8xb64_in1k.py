# The counterpart of t2t-vit-t-14_8xb64_in1k.py with performer layers in the tokenizer.
_base_ = ['./t2t-vit-t-14_8xb64_in1k.py']

model = dict(backbone=dict(arch='14'))
