"""Show the demo page in the browser."""

import argparse
import contextlib
import signal
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from ..apis.configs import find_config, find_run
from ..apis.models import published_weights
from ..apis.weights import check_checkpoint
from ..demo.models import DemoModel
from ..demo.page import Offer, Page, prepare_gradio
from ..errors import UsageError, one_line_errors
from ..measure.networks import quieten
from .arguments import add_shared, set_threads


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='Open a page for trying models in the browser: choose a model, give it an image, a clip or a '
        'built-in sample, and see the prediction, what each semantic token stands for, the multiply-adds and the time '
        'beside the dense baseline. Models that were trained in the work dirs are offered, those of `make demo` among '
        'them. The page loads nothing from other machines, and uploads are removed at the end. It needs Gradio: pip '
        "install 'mmstvit[demo]'.",
        epilog='example: mmstvit demo --model stvit-s_8xb128_in1k --checkpoint stvit-s.pth --port 8000',
    )
    parser.add_argument(
        '--work-dirs', type=Path, default=Path('work_dirs'), metavar='DIR', help='folder of trained models, %(default)s'
    )
    parser.add_argument('--model', metavar='MODEL', help='another: a name of `mmstvit list`, a config or a work dir')
    add_shared(parser, '--checkpoint')
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to listen at, %(default)s; 0.0.0.0 lets other machines in'
    )
    parser.add_argument('--port', type=int, metavar='N', help='default the first free one from 7860 on')
    parser.add_argument('--inbrowser', action='store_true', help='open the page in the default browser')
    add_shared(parser, '--device', '--threads', '--trust-checkpoint')
    return parser.parse_args(argv)


def own_model(args: argparse.Namespace) -> DemoModel | None:
    """Load the model of ``--model``, so that what is wrong with it is reported before the page is there."""
    if args.model is None:
        return None
    model, checkpoint = find_run(args.model, args.checkpoint)
    config = find_config(model)
    weights = checkpoint or published_weights(config)
    own = DemoModel(config.stem, config, weights, args.device, args.trust_checkpoint)
    own.model  # noqa: B018
    return own


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors(), tempfile.TemporaryDirectory(prefix='mmstvit-demo-') as folder:
        args = parse_args(argv)
        set_threads(args.threads, args.device.startswith('cuda'))
        if args.checkpoint and not args.model:
            raise UsageError('--checkpoint is the weights of --model: give that too')
        check_checkpoint(args.checkpoint)
        prepare_gradio(f'{folder}/uploads')
        quieten()
        offer = Offer(args.work_dirs, args.device, args.trust_checkpoint, Path(folder, 'samples'), own_model(args))
        try:
            page = Page(offer)
            blocks = page.launch(args.host, args.port, args.inbrowser)
        except OSError as error:
            raise UsageError(f'the page cannot be at {args.host}:{args.port or 7860}: give another --port') from error
        print(f'The page is at {blocks.local_url} (Ctrl-C ends it)', flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the folder is removed
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        page.running.acquire()
        blocks.close(verbose=False)  # it waits for what is being answered, which writes into the folder
