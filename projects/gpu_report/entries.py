"""What the suite measures, as data, the most important first: networks beside their dense peer, dtypes, batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from .parity import DETECTOR, OPERATORS, cases

SECTIONS = ('speed', 'proportional', 'graph', 'compile', 'train', 'parity', 'operators', 'detector')

DEIT_T, DEIT_S = 'timm:deit_tiny_patch16_224', 'timm:deit_small_patch16_224'
VIT_B, VIT_L = 'timm:vit_base_patch16_224', 'timm:vit_large_patch16_224'  # DeiT-B is the same network as ViT-B
VIT_L_384, DINO_B = 'timm:vit_large_patch16_384', 'timm:vit_base_patch14_dinov2'  # the latter of 518 px
SWIN_T, SWIN_S = 'timm:swin_tiny_patch4_window7_224', 'timm:swin_small_patch4_window7_224'
STVIT_T, STVIT_S, STVIT_B = 'stvit-t_8xb128_in1k', 'stvit-s_8xb128_in1k', 'stvit-b_8xb128_in1k'
STVIT_SWIN_T, STVIT_SWIN_S = 'stvit-swin-t_16xb64_in1k', 'stvit-swin-s_16xb64_in1k'
TOME, EVIT = ('+tome:r=13', '+tome:r=26,to=0'), '+evit:keep_rate=0.5'
PROPORTIONAL = (DEIT_S + TOME[0], f'{DEIT_S}{TOME[0]},proportional=False')  # with the mask of sizes, and without
TOME_L = ('+tome:r=8', '+tome:r=16,to=0')  # of 24 layers

# Backbones alone, by the options of their class: (class, options, size). They need no toolbox.
BARE = {
    'Swin-T (ours), 4 maps': (
        'STViTSwin',
        dict(arch='tiny', semantic_size=None, out_indices=(0, 1, 2, 3)),
        (800, 1216),
    ),
    'STViT-R-Swin-T, dense': ('STViTR', dict(arch='tiny', dense=True), (800, 1216)),
    'Video Swin-T (ours)': ('STViTSwin3D', dict(arch='tiny', semantic_size=None), (32, 224, 224)),
    'STViT-Swin3D-T': ('STViTSwin3D', dict(arch='tiny'), (32, 224, 224)),
}


@dataclass(frozen=True)
class Entry:
    """One measurement.

    Attributes:
        section: of the report, one of ``SECTIONS``.
        networks: specs as of :func:`.load_network` or names in ``BARE``, the dense peer first. Of the last three
            sections what is compared.
        dtype: one of ``DTYPES``.
        batch: inputs of a run.
        part: ``'model'`` or ``'backbone'``.
        cast: whether weights are cast, else lower precision is by autocast.
    """

    section: str
    networks: tuple[str, ...]
    dtype: str = 'float32'
    batch: int = 1
    part: str = 'model'
    cast: bool = True

    @property
    def key(self) -> str:
        """What it is found by in a file of results."""
        return f'{self.section}: {" | ".join(self.networks)}, {self.dtype}, batch {self.batch}'

    @property
    def mode(self) -> str:
        """How networks are run, as the CSV says it."""
        return dict(graph='graph', compile='compiled', train='train').get(self.section, 'eager')


_REDUCERS = (*TOME, EVIT)
_GROUPS = (
    # networks, the batches of the first pass, those that come last
    ((DEIT_S, STVIT_S, *(DEIT_S + r for r in _REDUCERS)), (1, 64, 256), (8,)),
    ((DEIT_T, STVIT_T), (1, 64, 256), (8,)),
    ((VIT_B, STVIT_B, *(VIT_B + r for r in _REDUCERS)), (1, 64, 256), (8,)),
    ((SWIN_T, STVIT_SWIN_T), (1, 64, 256), (8,)),
    ((DINO_B, DINO_B + '+tome:budget=0.5', DINO_B + EVIT), (1, 32), (8,)),
    ((VIT_L, *(VIT_L + r for r in (*TOME_L, EVIT))), (1, 64), (8, 256)),
    ((DEIT_S, 't2t-vit-t-14_8xb64_in1k', 'stvit-t2t-vit-t-14_8xb64_in1k'), (1, 64), (8, 256)),
    ((SWIN_S, STVIT_SWIN_S), (1, 64), (8, 256)),
    (('Swin-T (ours), 4 maps', 'STViT-R-Swin-T, dense'), (1, 8), ()),
    (('Video Swin-T (ours)', 'STViT-Swin3D-T'), (1, 8), ()),
    ((VIT_L_384, VIT_L_384 + '+tome:budget=0.5'), (), (32,)),
)

# The toolboxes' own networks beside ours: their shifted windows are masked in float32, so that they run by autocast.
_TOOLBOXES = (
    (('mmdet:mask-rcnn_swin-t-p4-w7_fpn_1x_coco', 'mask-rcnn_stvit-r-swin-t_fpn_1x_coco'), 'backbone', (1, 8)),
    (
        (
            'mmaction:swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb',
            'stvit-swin3d-t_8xb8-amp-32x2x1-30e_kinetics400-rgb',
        ),
        'model',
        (1, 8),
    ),
)


def gpu_entries() -> list[Entry]:
    """Return what is measured on a GPU, the most important first."""
    first, second = 'bfloat16', 'float16'
    return [
        *(Entry('parity', (case,)) for case in cases()),
        *_speed(first, early=True),
        *(Entry('proportional', PROPORTIONAL, first, batch) for batch in (64, 256, 1)),
        Entry('graph', (DEIT_S, STVIT_S, DEIT_S + TOME[0]), first),
        Entry('graph', (SWIN_T, STVIT_SWIN_T), first),
        *(Entry('train', (DEIT_S, STVIT_S), dtype, 128, cast=False) for dtype in (first, second)),
        *(Entry('operators', (name,)) for name in OPERATORS),
        Entry('detector', (DETECTOR,)),
        Entry('compile', (DEIT_S, STVIT_S), first, 64),
        Entry('compile', (DEIT_S, DEIT_S + TOME[0]), first, 64),
        *_speed(second, early=True),
        *(Entry('speed', names, first, n, part, False) for names, part, batches in _TOOLBOXES for n in batches),
        *_speed(first, early=False),
        *_speed(second, early=False),
    ]


def _speed(dtype: str, early: bool) -> list[Entry]:
    return [
        Entry('speed', networks, dtype, batch)
        for networks, first, last in _GROUPS
        for batch in (first if early else last)
    ]


def cpu_entries() -> list[Entry]:
    """Return the same for a CPU, smaller."""
    small = (DEIT_S, STVIT_S, DEIT_S + TOME[0])
    return [
        *(Entry('parity', (case,)) for case in cases()),
        *(Entry('speed', (DEIT_T, STVIT_T), batch=batch, cast=False) for batch in (1, 8)),
        *(Entry('speed', small, batch=batch, cast=False) for batch in (1, 8)),
        Entry('proportional', PROPORTIONAL, cast=False),
        Entry('train', (DEIT_T, STVIT_T), batch=8, cast=False),
        *(Entry('operators', (name,)) for name in OPERATORS),
        Entry('detector', (DETECTOR,)),
    ]


def entries(on_gpu: bool, only: Sequence[str] = ()) -> list[Entry]:
    """Return what is measured on a kind of device.

    Args:
        on_gpu: whether it is a GPU.
        only: sections; by default all.
    """
    return [e for e in (gpu_entries() if on_gpu else cpu_entries()) if not only or e.section in only]
