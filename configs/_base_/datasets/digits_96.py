# The digits at 96 px: the third stage of a hierarchical network has 6 x 6 tokens of them.
_base_ = ['./digits.py']

resize = dict(type='Resize', scale=96, interpolation='bicubic')

train_dataloader = dict(dataset=dict(pipeline=[resize, *_base_.train_pipeline[1:]]))
val_dataloader = dict(dataset=dict(pipeline=[resize, *_base_.test_pipeline[1:]]))
test_dataloader = val_dataloader
