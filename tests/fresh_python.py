"""Python code in a process that has imported nothing of ours and no toolbox, in the time that its own imports take."""

import atexit
import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

# Serves a line of JSON after the other: runs the code in a fork of itself, and answers with its exit code.
SERVER = """
import json, os, sys, traceback
import torch, mmengine.config, mmengine.registry
OURS = ('mmstvit', 'mmpretrain', 'mmdet', 'mmseg', 'mmaction', 'mmcv', 'torchvision', 'gradio')
assert not [name for name in OURS if name in sys.modules]

def run(code, output):
    for number, path in enumerate(output, 1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    try:
        exec(compile(code, 'code', 'exec'), dict(__name__='__main__'))
        return 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()

for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os._exit(run(**job))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@functools.cache
def server():
    """A process that has imported PyTorch and mmengine; one serves all tests of this process."""
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.stdin.close)
    return process


def run_fresh(code):
    """Run code as a main program; return what it printed, an error of it fails the test."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ('out', 'err')]
        for file in files:
            file.touch()
        server().stdin.write(json.dumps(dict(code=code, output=[str(file) for file in files])) + '\n')
        server().stdin.flush()
        exit_code = int(server().stdout.readline())
        out, err = (file.read_text() for file in files)
    assert exit_code == 0, err[-3000:]
    return out.strip()
