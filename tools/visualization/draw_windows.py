"""Draw what the options of windows mean: ``python tools/visualization/draw_windows.py docs/images/windows.png``.

Nothing is drawn by hand: what a window sees are the tokens that its outputs depend on, by the gradient of the layers
themselves; dead cells and keys of zeros are those of the layouts that these layers use.
"""

import argparse
import math

import matplotlib
import numpy as np
import torch
from draw_idea import IMAGE, SEMANTIC
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from mmstvit.functional.windows import partition
from mmstvit.layers.published_layout import PublishedWindows
from mmstvit.layers.steps import Generation, Recovery, Refinement, Step
from mmstvit.layers.tokens import Tokens
from mmstvit.layers.window_layout import WindowLayout
from mmstvit.models import STViTR, STViTSwin
from mmstvit.models.backbones.swin import SemanticSwin

matplotlib.use('agg')
import matplotlib.pyplot as plt  # noqa: E402

ARCH = dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 1, 1, 1))  # who sees whom is the same at any width
WINDOW = '#d62728'
PALE = 0.75  # of white in the colour of a token that is not seen
PADDING = (0.85, 0.85, 0.85)


def layout_of(model: SemanticSwin, grid: tuple[int, int]) -> WindowLayout:
    """The windows of the third stage over a grid of tokens."""
    return model.layout(grid, torch.device('cpu'))


def seen(model: SemanticSwin, layout: WindowLayout, kind: type[Step], window: int) -> np.ndarray:
    """The tokens that the first step of a kind takes into the outputs of a window, (rows, columns), bool.

    Image tokens for the two layers of the STGM, semantic tokens for recovery.
    """
    encoder = model.stages[2].encoder
    block, step = next((b, s) for b, s in zip(encoder.layers, encoder.steps) if isinstance(s, kind))
    image = torch.rand(1, *layout.grid, block.norm1.weight.numel(), requires_grad=True)
    semantic = layout.initial_centers(image, 'max').detach().requires_grad_()
    tokens = Tokens(image, layout) if kind is Generation else Tokens(semantic, layout, image)
    out, source = step(block, tokens).x, semantic if kind is Recovery else image
    if kind is Recovery:
        out = partition(out, layout.spec.window, layout.num_windows)
    (gradient,) = torch.autograd.grad(out[0, window].sum(), source)
    if kind is Recovery:
        gradient = layout.to_grid(gradient)
    return (gradient[0].abs().sum(-1) > 0).numpy()


def dead_cells(layout: WindowLayout) -> np.ndarray:
    """Semantic cells that are no keys, since they are made of padding alone, (rows, columns), bool."""
    dead = np.ones(layout.cells, bool)
    dead[tuple(slice(0, n) for n in layout.valid)] = False
    return dead


def zero_keys(layout: WindowLayout) -> np.ndarray:
    """How many keys of each window are zeros, of padding or from outside the image, (rows, columns) of windows."""
    _, attention = layout.generation(torch.zeros(1, 1, 1, 1), torch.zeros(1, *layout.grid, 1))
    if not isinstance(layout, PublishedWindows):
        return np.zeros(layout.num_windows, int)
    # (groups, 1, windows of a group x queries, keys), the last key that of zeros; all queries of a window see the same.
    per_window = attention.bias[..., -1].flatten().reshape(math.prod(layout.num_windows), -1)[:, 0]
    return per_window.exp().round().int().reshape(layout.num_windows).numpy()


def draw_cells(axes: Axes, color: str, size: tuple[int, int], marked: np.ndarray | None = None, gray=None) -> None:
    """A grid of tokens: full colour where ``marked``, gray where ``gray``; what is beyond them is padding."""
    cells = np.full((*size, 3), PADDING)
    shape = size if marked is None else marked.shape
    full = np.array(to_rgb(color))
    cells[: shape[0], : shape[1]] = PALE + (1 - PALE) * full
    if marked is not None:
        cells[: shape[0], : shape[1]][marked] = full
    if gray is not None:
        cells[: gray.shape[0], : gray.shape[1]][gray] = PADDING
    axes.imshow(cells, extent=(0, size[1], size[0], 0), interpolation='nearest')
    draw_lines(axes, size, (1, 1), 'white', 0.25 if max(size) < 20 else 0.0)
    axes.axis('off')


def draw_lines(axes: Axes, counts: tuple[int, int], unit: tuple[int, int], color: str, width: float) -> None:
    """The borders of rows and columns of ``unit`` cells."""
    (rows, columns), (height, breadth) = counts, unit
    axes.hlines(np.arange(rows + 1) * height, 0, columns * breadth, color=color, linewidth=width, clip_on=False)
    axes.vlines(np.arange(columns + 1) * breadth, 0, rows * height, color=color, linewidth=width, clip_on=False)


def draw_windows(axes: Axes, layout: WindowLayout, unit: tuple[int, int], window: int) -> None:
    """The borders of all windows of ``unit`` cells, and one of them framed."""
    draw_lines(axes, layout.num_windows, unit, 'white', 1.0)
    row, column = divmod(window, layout.num_windows[1])
    corner = (column * unit[1], row * unit[0])
    axes.add_patch(
        Rectangle(corner, unit[1], unit[0], fill=False, edgecolor=WINDOW, linewidth=2.0, clip_on=False, zorder=3)
    )


def draw_form(panels: list[Axes], model: SemanticSwin, recovering: SemanticSwin, grid: tuple[int, int], window: int):
    """Windows, semantic tokens, and what a window sees in each layer, for one size of the image."""
    layout, other = layout_of(model, grid), layout_of(recovering, grid)
    spec = layout.spec
    padded = tuple(n * w for n, w in zip(layout.num_windows, spec.window))
    tokens = '{} x {}'.format(*grid)

    draw_cells(panels[0], IMAGE, padded, np.zeros(grid, bool))
    draw_windows(panels[0], layout, spec.window, window)
    panels[0].set_title(f'window_size={spec.window[0]}\n{tokens} image tokens')
    draw_cells(panels[1], SEMANTIC, layout.cells, np.zeros(layout.cells, bool), dead_cells(layout))
    draw_windows(panels[1], layout, spec.size, window)
    panels[1].set_title(f'semantic_size={spec.size[0]}\n' + '{} x {} semantic tokens'.format(*layout.cells))
    for axes, kind, title in zip(panels[2:4], (Generation, Refinement), ('STGM, first layer', 'STGM, second layer')):
        marked = seen(model, layout, kind, window)
        draw_cells(axes, IMAGE, padded, marked)
        draw_windows(axes, layout, spec.window, window)
        axes.set_title(f'{title}: sees\n{extent(marked)} image tokens')
    marked = seen(recovering, other, Recovery, window)
    draw_cells(panels[4], SEMANTIC, other.cells, marked, dead_cells(other))
    draw_windows(panels[4], other, other.spec.size, window)
    panels[4].set_title(f'recovery: sees\n{extent(marked)} semantic tokens')


def extent(marked: np.ndarray) -> str:
    """Rows and columns that are marked."""
    return f'{marked.any(axis=1).sum()} x {marked.any(axis=0).sum()}'


def draw_masks(panels: list[Axes], grid: tuple[int, int]) -> None:
    """Of each key mask, how many keys of the windows are zeros, in the first layer of the STGM."""
    for axes, mask in zip(panels, ('exact', 'published', None)):
        layout = layout_of(STViTR(ARCH, dense=True, key_mask=mask), grid)
        zeros = zero_keys(layout)
        axes.imshow(zeros, cmap='Reds', vmin=0, vmax=196, extent=(0, zeros.shape[1], zeros.shape[0], 0))
        draw_lines(axes, zeros.shape, (1, 1), 'gray', 0.4)
        for (row, column), number in np.ndenumerate(zeros):
            if number:
                axes.text(column + 0.5, row + 0.55, number, ha='center', va='center', fontsize=5.5)
        axes.set_title(f'key_mask={mask!r}\nzeros among the 14 x 14 keys')
        axes.axis('off')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', help='the PNG to write')
    out = parser.parse_args().out

    torch.manual_seed(0)
    plt.rcParams['axes.titlesize'] = 8
    figure = plt.figure(figsize=(9.4, 7.4), layout='constrained')
    rows = figure.subfigures(3, 1, height_ratios=(1.25, 1, 0.95))
    titles = (
        '224 px: STViTSwin, and STViTR with dense=False (recovery: STViTR, semantic_size=3)',
        'Any size, here 800 x 1216 px: STViTR with dense=True. Gray: padding, and what is made of it alone',
        'The same image, 8 x 11 windows: how many zeros key_mask leaves to each',
    )
    for row, title in zip(rows, titles):
        row.suptitle(title, x=0.01, ha='left', fontsize=9.5, fontweight='bold')
    # Without stochastic depth, which would hide what a layer sees now and then.
    swin, recovering = STViTSwin(ARCH, semantic_size=4).eval(), STViTR(ARCH).eval()
    draw_form(list(rows[0].subplots(1, 5)), swin, recovering, (14, 14), 0)
    dense = STViTR(ARCH, dense=True).eval()
    draw_form(list(rows[1].subplots(1, 5)), dense, dense, (50, 76), 3 * 11 + 5)
    draw_masks(list(rows[2].subplots(1, 3)), (50, 76))
    figure.savefig(out, dpi=150)


if __name__ == '__main__':
    main()
