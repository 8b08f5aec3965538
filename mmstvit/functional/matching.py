"""Which tokens become one, or are kept: the rules of the methods, as pure functions that return reductions.

Everything is decided image by image. The first ``num_prefix`` tokens (class token, distillation token, registers) are
never merged and stay first.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import full_precision
from .reduction import Reduction, compose, one_hot, reduction_into, reduction_to, summed, take, with_prefix
from .windows import Size


def best_matches(sources: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Find for each source its most similar target.

    Args:
        sources: (B, A, D), of length 1, so that products are similarities (cosines).
        targets: (B, T, D), the same of the targets.

    Returns:
        The sources by how close they are to their match, the closest first (B, A), and the place of each one's match in
        ``targets`` (B, A).
    """
    best, match = (sources @ targets.transpose(1, 2)).max(dim=-1)
    return best.argsort(dim=-1, descending=True), match


def bipartite_soft_matching(metric: Tensor, r: int, num_prefix: int = 0) -> Reduction:
    """Match tokens in pairs and merge the r most similar, as in "Token Merging: Your ViT But Faster".

    Equations of arXiv 2210.09461, section 3: tokens at even places are each matched with the most similar one at an odd
    place; the r best matches are merged, several into one where they meet. The order becomes: prefix tokens, those at
    even places that stay, those at odd places.

    Args:
        metric: (B, N, D), what similarity (the cosine) is taken of.
        r: tokens to remove, at most half of those that are not prefix tokens.
        num_prefix: tokens at the front that are never merged.

    Raises:
        ValueError: ``r`` is negative or too large.
    """
    total = metric.shape[1]
    if not 0 <= r <= (total - num_prefix) // 2:
        raise ValueError(f'r={r} must be between 0 and half of the {total - num_prefix} tokens that can be merged')
    metric = F.normalize(metric, dim=-1)
    first_even, first_odd = num_prefix + num_prefix % 2, num_prefix + 1 - num_prefix % 2
    order, match = best_matches(metric[:, first_even::2], metric[:, first_odd::2])
    merged, kept = order[:, :r], order[:, r:].sort(dim=-1).values
    into, num_kept = match.gather(1, merged), kept.shape[1]

    def merge(x: Tensor) -> Tensor:
        # A product for the merged tokens alone: of many tokens one for all would take longer than what it saves.
        even, odd = x[:, first_even::2], x[:, first_odd::2]
        sums = odd + summed(take(even, merged), into, odd.shape[1])
        return torch.cat((x[:, :num_prefix], take(even, kept), sums), dim=1)

    def destination() -> Tensor:
        stays = order.argsort(dim=-1) >= r
        even = torch.where(stays, stays.cumsum(dim=1) - 1, num_kept + match)
        odd = torch.arange(num_kept, total - num_prefix - r, device=even.device).expand(even.shape[0], -1)
        sides = (even, odd) if first_even == num_prefix else (odd, even)
        return with_prefix(interleave(*sides), num_prefix)

    return Reduction(merge, lambda x: take(x, destination()), destination)


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """Take rows of two sequences in turn: (B, A, ...) and (B, A, ...) or (B, A - 1, ...) -> (B, N, ...)."""
    total = first.shape[1] + second.shape[1]
    second = F.pad(second, [0, 0] * (second.dim() - 2) + [0, first.shape[1] - second.shape[1]])
    return torch.stack((first, second), dim=2).flatten(1, 2)[:, :total]


def cell_matching(metric: Tensor, grid: Size, r: int, num_prefix: int = 0) -> Reduction:
    """Merge the r tokens of a grid that are most similar to the first token of some 2 x 2 cell.

    "Token Merging for Fast Stable Diffusion", arXiv 2303.17604, section 4: the first token of each cell is a target,
    all others are sources. Tubelets of a clip have the cells of their own step of time.

    Args:
        metric: (B, N, D), what similarity (the cosine) is taken of.
        grid: tokens along each axis.
        r: tokens to remove, at most the sources.
        num_prefix: tokens at the front that are never merged.
    """
    device, count = metric.device, metric.shape[1] - num_prefix
    rows, columns = (torch.arange(n, device=device) % 2 == 0 for n in grid[-2:])
    first = (rows[:, None] & columns).expand(*grid).flatten()
    order = torch.arange(count, device=device) + count * ~first  # targets, then sources, each in their old order
    order = order.argsort().expand(metric.shape[0], -1)
    return _merge_into_first(metric, order, cell_count(grid), r, num_prefix)


def size_matching(metric: Tensor, size: Tensor, r: int, num_prefix: int = 0) -> Reduction:
    """Merge the r tokens of the smaller half that are most similar to one of the larger half.

    Matching for the last layers of "Lossless Token Merging Even Without Fine-Tuning in Vision Transformers" (ATM),
    arXiv 2505.15160: large tokens are never merged with each other. Of equal sizes the first counts as larger.

    Args:
        metric: (B, N, D), what similarity (the cosine) is taken of.
        size: (B, N, 1), patches that each token stands for.
        r: tokens to remove, at most half of those that are not prefix tokens.
        num_prefix: tokens at the front that are never merged.
    """
    count = metric.shape[1] - num_prefix
    order = size[:, num_prefix:, 0].argsort(dim=-1, descending=True, stable=True)
    return _merge_into_first(metric, order, count - count // 2, r, num_prefix)


def cell_count(grid: Size) -> int:
    """Return how many 2 x 2 cells a grid has, of a clip in all steps of time."""
    count = ((grid[-2] + 1) // 2) * ((grid[-1] + 1) // 2)
    return count if len(grid) == 2 else grid[0] * count


def energy_matching(metric: Tensor, r: int, margin: float, num_prefix: int = 0) -> Reduction:
    """Merge r pairs among the 2 r tokens that have most others like them, and protect the rest.

    "Accelerating Transformers with Spectrum-Preserving Token Merging" (PiToMe), arXiv 2405.16148, its energy score:
    ``E_i = mean_j f(cos_ij)`` with ``f(c) = c`` from the margin m on and ``exp(c - m) - 1`` below. The 2 r tokens of
    highest energy go to two sides in turn, and each of one side is merged into its most similar one of the other.

    Args:
        metric: (B, N, D), what similarity (the cosine) is taken of.
        r: tokens to remove, at most half of those that are not prefix tokens.
        margin: m.
        num_prefix: tokens at the front that are never merged.
    """
    if r == 0:
        return compose(())
    total = metric.shape[1]
    metric = F.normalize(metric[:, num_prefix:], dim=-1)
    cosine = metric @ metric.transpose(1, 2)
    energy = torch.where(cosine >= margin, cosine, (cosine - margin).exp() - 1).mean(dim=-1)  # (B, N)
    order = energy.argsort(dim=-1, descending=True)
    sources, targets = order[:, : 2 * r : 2], order[:, 1 : 2 * r : 2]  # (B, r) each
    between = cosine.gather(1, sources[..., None].expand(-1, -1, cosine.shape[-1]))
    between = between.gather(2, targets[:, None].expand(-1, r, -1))
    into = targets.gather(1, between.argmax(dim=-1))  # (B, r)
    # The energies' order, with each source replaced by what it is merged into, and back to the order of the tokens.
    pairs = torch.stack((into, targets), dim=-1).flatten(1)
    target = torch.cat((pairs, order[:, 2 * r :]), dim=1).gather(1, order.argsort(dim=-1))
    return reduction_into(with_prefix(target, num_prefix), total - r)


def density_peaks(x: Tensor, num_tokens: int, num_prefix: int = 0) -> Reduction:
    """Cluster tokens around peaks of their density, by the five nearest neighbours of each (DPC-KNN).

    As in "Not All Tokens Are Equal" (TCFormer), arXiv 2204.08680, section 3.2: with distances divided by sqrt(C), the
    density of a token is ``exp(-mean squared distance to its nearest neighbours)``; delta is the distance to the
    nearest denser token, of the densest the largest there is. The tokens with the highest density x delta are the
    centres, and every token joins the nearest one. Ours: a token is no neighbour of itself, and of two tokens of equal
    density the first counts as denser, in the place of added noise.

    Args:
        x: (B, N, C).
        num_tokens: how many clusters, prefix tokens not counted.
        num_prefix: tokens at the front that are no part of it.
    """
    x = x[:, num_prefix:].float()
    total = x.shape[1]
    distance = _square_distances(x, x).sqrt() / x.shape[-1] ** 0.5
    places = torch.arange(total, device=x.device)
    others = distance.masked_fill(places[:, None] == places, torch.inf)
    near = others.topk(min(5, total - 1), dim=-1, largest=False).values
    density = (-near.square().mean(dim=-1)).exp()  # (B, N)
    denser = density[:, None] > density[..., None]  # of row i, the tokens j that are denser
    denser |= (density[:, None] == density[..., None]) & (places < places[:, None])
    delta = distance.masked_fill(~denser, torch.inf).amin(dim=-1)
    delta = torch.where(delta.isinf(), distance.flatten(1).amax(dim=-1, keepdim=True), delta)
    centers = (density * delta).topk(num_tokens, dim=-1).indices  # (B, K)
    to_centers = distance.gather(2, centers[:, None].expand(-1, total, -1))
    nearest = centers.gather(1, to_centers.argmin(dim=-1))
    is_center = one_hot(centers, total).any(dim=1)
    return reduction_into(with_prefix(torch.where(is_center, places, nearest), num_prefix), num_prefix + num_tokens)


def grid_cells(grid: Size, cells: Size, batch: int, num_prefix: int, device: torch.device) -> Reduction:
    """Merge the tokens of a grid into a coarser one: cell i takes the places y with ``floor(y cells / grid) = i``.

    The bins of adaptive pooling, but for those that overlap: each token belongs to one cell.

    Args:
        grid: tokens along each axis.
        cells: wanted along each axis.
        batch: B; it is the same for each image.
        num_prefix: tokens at the front that are never merged.
        device: of the tokens.
    """
    index = torch.zeros(1, dtype=torch.long, device=device)
    for n, m in zip(grid, cells):
        index = index[..., None] * m + torch.arange(n, device=device) * m // n
    destination = torch.cat((torch.arange(num_prefix, device=device), num_prefix + index.flatten()))
    return reduction_to(destination.expand(batch, -1), num_prefix + math.prod(cells))


def soft_clusters(
    x: Tensor,
    grid: Size,
    cells: Size,
    size: Tensor | None = None,
    num_prefix: int = 0,
    iterations: int = 2,
    neighbors: int = 4,
    sharpness: float = 4.0,
) -> Reduction:
    """Cluster the tokens of a grid around its cells, and reconstruct each from the clusters nearest to it.

    "Expediting Large-Scale Vision Transformer for Dense Prediction without Fine-tuning", arXiv 2210.01035, section 3:
    the first centres are the means of the cells; in each of a few rounds of soft k-means a token is shared out among
    the centres of its own cell and those that touch it, and the centres become the means of their shares. What belongs
    to clusters is given back to token i as ``sum_j softmax_j(-tau |x_i - c_j|^2) y_j`` over its nearest clusters j.
    Ours: tau, in both, is the sharpness over the image's mean of ``|x_i - c_j|^2`` to the nearest j, since widths and
    layers differ; and a token weighs in the centres by the patches that it stands for.

    Args:
        x: (B, N, C), prefix tokens first.
        grid: of the others, along each axis.
        cells: wanted along each axis; as many clusters.
        size: (B, N, 1), patches that each token stands for; ``None`` for one each.
        num_prefix: tokens at the front that are no part of it.
        iterations: rounds; of none, tokens belong to their cells.
        neighbors: clusters that a token is reconstructed from.
        sharpness: the higher, the nearer is all to the nearest cluster alone.
    """
    x = x[:, num_prefix:].float()
    size = torch.ones_like(x[..., :1]) if size is None else size[:, num_prefix:]
    near = touching_cells(grid, cells, x.device)
    own = grid_cells(grid, cells, x.shape[0], 0, x.device)
    share = own.unmerge(torch.eye(near.shape[1], device=x.device).expand(x.shape[0], -1, -1))  # (B, N, M)
    for i in range(iterations + 1):
        weights = (share * size).transpose(1, 2)
        with full_precision(x):
            centers = weights @ x / weights.sum(dim=-1, keepdim=True)
        square = _square_distances(x, centers)
        if i < iterations:
            share = _softmin(square.masked_fill(~near, torch.inf), sharpness) + 1e-9 * near  # no cluster is left empty
    last = square.topk(min(neighbors, square.shape[-1]), dim=-1, largest=False).values[..., -1:]
    back = _softmin(square.masked_fill(square > last, torch.inf), sharpness)

    def merge(x: Tensor) -> Tensor:
        return torch.cat((x[:, :num_prefix], share.transpose(1, 2).to(x.dtype) @ x[:, num_prefix:]), dim=1)

    def unmerge(x: Tensor) -> Tensor:
        return torch.cat((x[:, :num_prefix], back.to(x.dtype) @ x[:, num_prefix:]), dim=1)

    return Reduction(merge, unmerge)


def touching_cells(grid: Size, cells: Size, device: torch.device) -> Tensor:
    """Return whether each cell of :func:`grid_cells` is that of a token or touches it, (N, M)."""
    near = torch.ones(1, 1, dtype=torch.bool, device=device)
    for n, m in zip(grid, cells):
        own = torch.arange(n, device=device) * m // n
        axis = (own[:, None] - torch.arange(m, device=device)).abs() <= 1
        near = (near[:, None, :, None] & axis[None, :, None]).flatten(2).flatten(0, 1)
    return near


def _softmin(square: Tensor, sharpness: float) -> Tensor:
    """Return the shares of points in centres by squared distances (B, N, M), which are infinite where there is none."""
    mean = square.amin(dim=-1, keepdim=True).mean(dim=1, keepdim=True)
    return (square * (-sharpness / mean.clamp(min=1e-20))).softmax(dim=-1)


def _merge_into_first(metric: Tensor, order: Tensor, num_targets: int, r: int, num_prefix: int) -> Reduction:
    """Merge r tokens of the last ones in an order (B, N) into their most similar one of the first ``num_targets``."""
    targets, sources = order[:, :num_targets], order[:, num_targets:]
    metric = F.normalize(metric[:, num_prefix:], dim=-1)
    closest, match = best_matches(take(metric, sources), take(metric, targets))
    into = torch.where(closest.argsort(dim=-1) < r, targets.gather(1, match), sources)
    target = torch.cat((targets, into), dim=1).gather(1, order.argsort(dim=-1))
    return reduction_into(with_prefix(target, num_prefix), num_prefix + order.shape[1] - r)


def _square_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return squared distances of points (B, N, C) and (B, M, C): of matrix products, which any exporter knows."""
    middle = y.mean(dim=1, keepdim=True)  # for precision
    x, y = x - middle, y - middle
    with full_precision(x):  # squares leave the range of half precision
        products = torch.baddbmm(y.square().sum(dim=-1)[:, None], x, y.transpose(1, 2), alpha=-2)
    return (products + x.square().sum(dim=-1)[..., None]).clamp(min=0)
