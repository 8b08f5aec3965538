"""Detect handwritten digits with masks, from nothing to a picture: ``python tools/demo_det.py``.

Makes scenes of scikit-learn's digits in COCO's format, trains configs/digits/mask-rcnn_stvit-r_digits.py on them, tests
the checkpoint on held-out scenes, and leaves a picture of detected digits under the work dir. Training that was
interrupted goes on where it stopped; what is finished is not repeated.
"""

import contextlib
import io
from pathlib import Path

from demo import ROOT, draw_into_files, say, train_and_test, work_dir_of

CONFIG = 'configs/digits/mask-rcnn_stvit-r_digits.py'
DATA = 'data/digits_scenes'  # where the config looks, below the working folder
ENLARGED = 3  # so that labels can be read


def draw_detections(work_dir: Path, checkpoint: Path, rows: int = 3, columns: int = 4) -> Path:
    """Infer held-out scenes and draw the digits found, with their masks, on one sheet."""
    import cv2
    import numpy as np
    from mmdet.visualization import DetLocalVisualizer

    from mmstvit import get_model, inference_model

    scenes = [cv2.imread(str(path)) for path in sorted(Path(DATA, 'val').glob('*.png'))[: rows * columns]]
    # The network sees them at their own size: its pipeline makes them small again.
    scenes = [cv2.resize(s, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC) for s in scenes]
    with contextlib.redirect_stdout(io.StringIO()):
        model = get_model(str(ROOT / CONFIG), str(checkpoint))
        results = inference_model(model, scenes)
    visualizer = DetLocalVisualizer(line_width=1, alpha=0.5)
    visualizer.dataset_meta = model.dataset_meta
    drawn = []
    for scene, result in zip(scenes, results):
        visualizer.add_datasample('', scene[..., ::-1], result, draw_gt=False, pred_score_thr=0.5)
        drawn.append(visualizer.get_image()[..., ::-1])
    sheet = np.vstack([np.hstack(drawn[i : i + columns]) for i in range(0, len(drawn), columns)])
    path = work_dir / 'detections.png'
    cv2.imwrite(str(path), sheet)
    return path


def main() -> None:
    work_dir = work_dir_of(__doc__, CONFIG)
    draw_into_files()
    from mmstvit.datasets.scenes import make_scenes

    say(f'making 1,000 scenes of handwritten digits in {DATA}')
    make_scenes(DATA)
    say(f'training {CONFIG} on 800 of them: about six minutes on two cores')
    checkpoint, metrics = train_and_test(CONFIG, work_dir)
    say('inferring 12 held-out scenes')
    say(f'detections:      {draw_detections(work_dir, checkpoint)}')
    say(f'checkpoint:      {checkpoint}')
    say(f'held-out box AP: {metrics["coco/bbox_mAP"]:.3f}  mask AP: {metrics["coco/segm_mAP"]:.3f}')


if __name__ == '__main__':
    main()
