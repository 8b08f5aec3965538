"""Download files by http(s), within limits of size and time; a file is whole or not there."""

import time
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from .files import unfinished

_SECONDS = 60  # without a byte, until a download is given up


class DownloadError(ValueError):
    """A download that is not kept; its text is what happened to it."""


def download(
    url: str, path: Path, progress: bool = True, most: int | None = None, seconds: float | None = None
) -> None:
    """Download a file; under its name it is there as a whole or not at all.

    Args:
        url: its address, http or https.
        path: where it is kept.
        progress: whether to show a bar.
        most: how many bytes it may have.
        seconds: how long it may take.

    Raises:
        DownloadError: it was cut off, is larger or took longer.
        OSError: it cannot be downloaded.
    """
    begin, read = time.monotonic(), 0
    request = Request(url, headers={'User-Agent': 'mmstvit'})
    columns = TextColumn('{task.description}'), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with unfinished(path) as temporary, urlopen(request, timeout=_SECONDS) as response:
        total = response.length
        if most is not None and (total or 0) > most:
            raise DownloadError(f'it has {total} bytes, more than the {most} that are downloaded')
        with Progress(*columns, disable=not progress) as bar, temporary.open('wb') as target:
            task = bar.add_task(path.name, total=total)
            try:
                while data := response.read1(1 << 16):  # what has come, not waiting for more
                    target.write(data)
                    bar.advance(task, len(data))
                    read += len(data)
                    if most is not None and read > most:
                        raise DownloadError(f'it has more than the {most} bytes that are downloaded')
                    if seconds is not None and time.monotonic() - begin > seconds:
                        raise DownloadError(f'its download was not done after {seconds} seconds')
            except HTTPException as error:
                raise DownloadError('the download was cut off') from error
        if response.length:  # what is still to come
            raise DownloadError(f'the download was cut off: {read} of {total} bytes came')
        temporary.replace(path)
