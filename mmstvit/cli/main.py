"""The ``mmstvit`` command: everything in ``tools/`` by a word."""

import importlib
import sys
from collections.abc import Sequence

from ..errors import one_line_errors, suggest

# Command -> the module whose ``main`` it is, and what it is for. Modules are imported when they are asked for: the
# toolboxes take seconds.
COMMANDS = {
    'list': ('.list_models', 'the models, with their cost and accuracy'),
    'train': ('.train', 'train a model'),
    'test': ('.test', 'test a checkpoint'),
    'check-data': ('.check_data', 'what the data of a config has and lacks, before any training'),
    'infer': ('.infer', 'predict images, folders of images, or videos'),
    'demo': ('.demo', 'a page in the browser to try models on'),
    'flops': ('.flops', 'count multiply-adds, parameters and tokens'),
    'benchmark': ('.benchmark', 'time networks side by side'),
    'tune': ('.tune', 'find which tokens to leave out for a network to be as fast as it must'),
    'show-tokens': ('.show_tokens', 'draw what each semantic token stands for'),
    'show-cam': ('.show_cam', 'draw what speaks for a class'),
    'convert': ('.convert', 'convert published weights'),
    'export': ('.export', 'write a network to a file of ONNX, OpenVINO or torch.export'),
    'run-exported': ('..deploy.run_exported', 'predict images with such a file, without PyTorch'),
    'check-env': ('..check_env', 'what is installed, what clashes, and how to mend it'),
}
EXAMPLES = """examples:
  mmstvit list 'stvit-s*'
  mmstvit train digits/stvit-tiny_digits.py --work-dir work_dirs/digits
  mmstvit infer stvit-tiny_digits photos/ --checkpoint work_dirs/digits/epoch_40.pth --out results.jsonl
  mmstvit flops stvit-s_8xb128_in1k mmpretrain:deit-small_4xb256_in1k
  mmstvit COMMAND --help

Completion of commands and names of models: source <(mmstvit --completion bash), or zsh;
mmstvit --completion fish | source"""


def main(argv: Sequence[str] | None = None) -> int | None:
    """Entry point; hands on what the command's own ``main`` returns."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ('-h', '--help'):
        lines = [f'  {name:<12} {what}' for name, (_, what) in COMMANDS.items()]
        print('usage: mmstvit COMMAND ...', '', 'commands:', *lines, '', EXAMPLES, sep='\n')
        return 0 if arguments else 2
    name, *rest = arguments
    if name == '--version':
        from ..version import __version__

        print(f'mmstvit {__version__}')
        return 0
    if name == '--completion':
        from .completion import SHELLS, script

        if len(rest) != 1 or rest[0] not in SHELLS:
            print(f'error: --completion takes one of {", ".join(SHELLS)}', file=sys.stderr)
            return 2
        print(script(rest[0], {name: what for name, (_, what) in COMMANDS.items()}), end='')
        return 0
    if name not in COMMANDS:
        print(f'error: mmstvit has no command {name}{suggest(name, COMMANDS)} (mmstvit --help)', file=sys.stderr)
        return 2
    module = COMMANDS[name][0]
    # The name in usage lines, and the arguments of a command that reads them there.
    sys.argv = [f'mmstvit {name}', *rest]
    with one_line_errors():  # what it needs may not be installed
        command = importlib.import_module(module, __package__)
    return command.main(rest)
