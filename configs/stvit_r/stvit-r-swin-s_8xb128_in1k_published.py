# With the options of the authors' published weights: what the first STGM layer gives replaces the pooled tokens, and
# there are no global cluster centres.
_base_ = ['./stvit-r-swin-s_8xb128_in1k.py']

model = dict(backbone=dict(shortcut=False, use_global=False))
