"""Draw the picture of the idea that the README shows: ``python tools/visualization/draw_idea.py docs/images/idea.png``.

The bars are counted on the models: multiply-adds of each layer of STViT-S at 224 px, beside those of DeiT-S.
"""

import argparse

import matplotlib
import numpy as np
import torch
from sklearn.datasets import load_sample_image

from mmstvit.measure.complexity import count
from mmstvit.models import STViT

matplotlib.use('agg')
import matplotlib.pyplot as plt  # noqa: E402

IMAGE, SEMANTIC = '#4c78a8', '#f58518'


def multiply_adds_by_layer(model: STViT) -> list[float]:
    """Multiply-adds of each layer, in millions."""
    counted = count(model, torch.zeros(1, 3, 224, 224))
    return [counted.modules[f'encoder.layers.{i}'] / 1e6 for i in range(model.num_layers)]


def draw_grid(axes, photo: np.ndarray, cells: int, title: str, color: str) -> None:
    axes.imshow(photo, extent=(0, cells, cells, 0))
    axes.hlines(range(cells + 1), 0, cells, color='white', linewidth=0.7)
    axes.vlines(range(cells + 1), 0, cells, color='white', linewidth=0.7)
    axes.set_title(title, color=color, fontsize=11)
    axes.axis('off')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', help='the PNG to write')
    out = parser.parse_args().out

    photo = load_sample_image('flower.jpg')[:420, 120:540]
    small = photo.reshape(4, 105, 4, 105, 3).mean((1, 3)).astype(np.uint8)
    semantic, dense = STViT('small').eval(), STViT('small', semantic_grid=None).eval()
    ours, theirs = multiply_adds_by_layer(semantic), multiply_adds_by_layer(dense)

    figure = plt.figure(figsize=(11, 3.9), layout='constrained')
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.9), gridspec_kw=dict(wspace=0.12))
    draw_grid(left, photo, 14, '14 x 14 = 196\nimage tokens,\nlayers 1-4', IMAGE)
    draw_grid(middle, small, 4, '4 x 4 = 16\nsemantic tokens,\nlayers 5-12', SEMANTIC)
    arrow = dict(arrowstyle='-|>', linewidth=2, mutation_scale=18)
    middle.annotate('', (-0.08, 0.5), (-0.66, 0.5), xycoords='axes fraction', arrowprops=arrow)
    middle.text(
        -0.37, 0.6, 'STGM: pool,\nattend to the\nimage, twice', transform=middle.transAxes,
        ha='center', va='bottom', fontsize=9,
    )  # fmt: skip

    layers = np.arange(1, 13)
    before = [type(step).__name__ for step in semantic.encoder.steps].index('Generation')
    colors = [IMAGE if i < before else SEMANTIC for i in range(12)]
    right.bar(layers, theirs, color='none', edgecolor='gray', linestyle='--', label=f'DeiT-S: {sum(theirs):.0f} M')
    right.bar(layers, ours, color=colors)
    right.bar([1], [0], color=SEMANTIC, label=f'STViT-S: {sum(ours):.0f} M')
    right.set(
        xticks=layers,
        xlabel='layer',
        ylabel='multiply-adds, millions',
        title='the work of each layer, and of all layers',
    )
    right.set_ylim(0, 1.25 * max(theirs))
    right.legend(loc='upper right', ncols=2)
    for side in ('top', 'right'):
        right.spines[side].set_visible(False)
    figure.savefig(out, dpi=90)


if __name__ == '__main__':
    main()
