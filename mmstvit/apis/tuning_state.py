"""What ``tune`` has measured, in a file that a second run goes on from."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..errors import UsageError
from ..io.files import json_types, write_json
from ..measure.block_times import BlockTimes
from ..measure.report import environment
from ..measure.timing import Timing
from .tuning_data import COST_IMAGES, Samples
from .tuning_schedules import SHARES


class State:
    """What was measured, in a file that a second run with the same settings begins from.

    Raises:
        UsageError: the file is another program's.
    """

    def __init__(self, path: Path, settings: dict) -> None:
        key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self.path = path
        self.data: dict[str, Any] = dict(key=key, times={}, costs={}, results={})
        try:
            stored = json.loads(path.read_text())
        except (OSError, ValueError):  # none, or one that was cut off
            return
        if not isinstance(stored, dict) or 'key' not in stored:
            raise UsageError(f'{path} is there, and not by an earlier run of tune: give another folder')
        if stored['key'] == key:
            self.data = stored

    def once(self, part: str, name: str, make: Callable, *args: Any, **kwargs: Any) -> Any:
        """Return what is stored under a name, made and written first where it is not there."""
        if name not in self.data[part]:
            result = make(*args, **kwargs)
            self.data[part][name] = json_types(asdict(result) if isinstance(result, BlockTimes) else result)
            write_json(self.path, self.data)
        return self.data[part][name]


def settings_of(
    cfg: Config, checkpoint: str | None, data: str, samples: Samples, batch_size: int, timing: Timing
) -> dict[str, Any]:
    """Return all that times and costs depend on."""
    file = Path(checkpoint) if checkpoint else None
    stat = file.stat() if file and file.is_file() else None
    setting = environment(timing, samples.images.shape[1:], '')
    return dict(
        model=cfg.model.to_dict(),
        checkpoint=[checkpoint, stat and stat.st_size, stat and stat.st_mtime_ns],
        data=[os.path.abspath(data), hashlib.sha256(samples.images.numpy().tobytes()).hexdigest()],
        batch_size=batch_size,
        kept=[*BlockTimes.__dataclass_fields__, COST_IMAGES, *SHARES],  # what a file of another version has not
        timing=asdict(timing),
        machine={key: setting[key] for key in ('device', 'threads', 'torch')},
    )
