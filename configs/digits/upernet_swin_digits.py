# UPerNet on scenes of handwritten digits, with a plain Swin: the dense baseline of upernet_stvit-r_digits.py.
#   python tools/dataset_converters/digits_scenes.py
#   python tools/train.py configs/digits/upernet_swin_digits.py
_base_ = [
    '../_base_/models/upernet_swin_small.py',
    '../_base_/datasets/digits_maps.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/schedules/maps_adamw.py',
]

# The ground is 87 % of the pixels: with its full weight, which digit the others are of is learned late.
loss = dict(class_weight=[0.1] + [1.0] * 10, avg_non_ignore=False)  # mmseg takes the two options one at a time

model = dict(
    data_preprocessor=dict(mean=[80.0] * 3, std=[60.0] * 3, size=(128, 128)),
    decode_head=dict(num_classes=11, loss_decode=loss),
    auxiliary_head=dict(num_classes=11, loss_decode=loss),
)
log_processor = dict(by_epoch=True)  # mmseg's runtime counts iterations
