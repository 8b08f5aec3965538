"""Drawing primitives of the synthetic scenes and clips: backgrounds and ink."""

import cv2
import numpy as np


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a dark, softly textured background, (size, size, 3), float."""
    base = rng.uniform(20, 75) + rng.uniform(-12, 12, 3)
    clouds = cv2.resize(rng.normal(0, 12, (4, 4, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(base + clouds, 0, 110)


def rotation(angle: float) -> np.ndarray:
    """Return the (2, 2) matrix of a turn by an angle in degrees, clockwise as images are seen."""
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[cosine, -sine], [sine, cosine]])


def draw_ink(scan: np.ndarray, matrix: np.ndarray, centre: np.ndarray, side: int) -> np.ndarray:
    """Return the opacity of a scan scaled to a square, (side, side), from 0 to 1.

    Args:
        scan: (8, 8), white on black.
        matrix: (2, 2), from steps (x, y) in the scan to steps in the square.
        centre: where in the square, (x, y), the middle of the scan comes to lie.
        side: of the square, in pixels.
    """
    affine = np.column_stack([matrix, centre - matrix @ np.full(2, (len(scan) - 1) / 2)])
    values = cv2.warpAffine(scan.astype(np.float32), affine, (side, side), flags=cv2.INTER_CUBIC)
    # An edge about two pixels wide; the border of the mask, an opacity of 1/2, is at 0.4 of the fullest stroke: above
    # that thin strokes break, below it the holes of 8 and 9 close.
    return np.clip((values / values.max() - 0.3) / 0.2, 0, 1)
