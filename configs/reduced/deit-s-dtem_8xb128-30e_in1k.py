# The same as deit-s-tome_8xb128-30e_in1k.py with DTEM, of which the embeddings for the matching alone are learnt.
_base_ = ['./deit-s-tome_8xb128-30e_in1k.py']

model = dict(backbone=dict(reduce=dict(type='DTEM')), learn='embedding')
find_unused_parameters = True  # embeddings of blocks in which a drawn budget merges nothing
