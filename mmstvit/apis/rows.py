"""Write predictions as rows: lines of JSON, or CSV."""

import csv
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

ROW_FILES = ('.jsonl', '.csv')
_CORNERS = ('left', 'top', 'right', 'bottom')


class RowFile(AbstractContextManager):
    """A file of predictions, of which each is there as soon as it is written.

    ``.jsonl`` gets a line of JSON for each :func:`.record`. ``.csv`` gets a row for each image or video, with the best
    classes and their scores, ``class_1``, ``score_1``, ``class_2`` and so on; of a detector a row for each object, with
    its box in pixels, and none for an image without objects; of a segmentor a row for each class that there is, with
    its share of the pixels. What could not be read has a row with its ``error``.

    Args:
        path: the file, whose ending is one of ``ROW_FILES``.
        scope: the toolbox.
        topk: number of classes of a classifier, in CSV.
        of_frames: whether rows are of frames, whose number and time are columns then.
    """

    def __init__(self, path: str | Path, scope: str, topk: int = 1, of_frames: bool = False) -> None:
        self.path, self.topk = Path(path), topk
        self.parts = {'mmdet': 'objects', 'mmseg': 'areas'}.get(scope, '')
        self._file = self.path.open('w', encoding='utf-8', newline='')
        self._csv = None
        if self.path.suffix == '.csv':
            best = [f'{what}_{i}' for i in range(1, topk + 1) for what in ('class', 'score')]
            columns = dict(objects=['class', 'score', *_CORNERS], areas=['class', 'share']).get(self.parts, best)
            names = ['file', *(('frame', 'time') if of_frames else ()), *columns, 'error']
            self._csv = csv.DictWriter(self._file, names, extrasaction='ignore')
            self._csv.writeheader()

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def write(self, prediction: dict[str, Any]) -> None:
        """Write a :func:`.record` with the ``file`` that it is of."""
        if self._csv is None:
            self._file.write(json.dumps(prediction) + '\n')
        else:
            self._csv.writerows(self._rows(prediction))
        self._file.flush()  # what was inferred is there whatever happens next

    def _rows(self, prediction: dict[str, Any]) -> list[dict]:
        if 'error' in prediction:
            return [prediction]
        if self.parts:
            parts = prediction[self.parts]
            return [{**prediction, **one, **dict(zip(_CORNERS, one.get('box', ())))} for one in parts]
        one = {'class': prediction['pred_class'], 'score': prediction['pred_score']}
        best = enumerate(prediction.get('top', [one])[: self.topk], 1)
        return [{**prediction, **{f'{key}_{i}': entry[key] for i, entry in best for key in ('class', 'score')}}]


def write_csv(path: str | Path, rows: Sequence[Sequence[Any]]) -> None:
    """Write a table, the first row of which has the names of the columns."""
    with open(path, 'w', encoding='utf-8', newline='') as file:
        csv.writer(file).writerows(rows)
