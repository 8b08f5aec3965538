# UPerNet on scenes of handwritten digits, with a plain Swin: the dense baseline of upernet_stvit-r_digits.py.
#   python tools/dataset_converters/digits_scenes.py
#   python tools/train.py configs/digits/upernet_swin_digits.py
_base_ = [
    '../_base_/models/upernet_swin_small.py',
    '../_base_/datasets/digits_maps.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/schedules/maps_adamw.py',
]

model = dict(
    data_preprocessor=dict(mean=[80.0] * 3, std=[60.0] * 3, size=(128, 128)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
)
log_processor = dict(by_epoch=True)  # mmseg's runtime counts iterations
