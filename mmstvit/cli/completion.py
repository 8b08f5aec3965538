"""Scripts that complete commands and names of models in a shell: ``mmstvit --completion SHELL``."""

from collections.abc import Mapping

# After these the names of models are offered, and files where none begins so; after others files alone.
_OF_MODELS = (
    'list',
    'train',
    'test',
    'check-data',
    'infer',
    'flops',
    'benchmark',
    'tune',
    'show-tokens',
    'show-cam',
    'export',
)

_BASH = """_mmstvit() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}"
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands} --help --version" -- "$word"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
        {models})
            COMPREPLY=($(compgen -W "$("${{COMP_WORDS[0]}}" list --names 2>/dev/null)" -- "$word")) ;;
    esac
}}
complete -o default -F _mmstvit mmstvit
"""


_ZSH = 'autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n'
SHELLS = ('bash', 'zsh', 'fish')


def script(shell: str, commands: Mapping[str, str]) -> str:
    """Return the script for a shell.

    Args:
        shell: one of ``SHELLS``.
        commands: what each command does, by its name.
    """
    if shell != 'fish':
        text = _BASH.format(commands=' '.join(commands), models='|'.join(_OF_MODELS))
        return _ZSH + text if shell == 'zsh' else text
    lines = [f"complete -c mmstvit -n __fish_use_subcommand -f -a {n} -d '{what}'" for n, what in commands.items()]
    seen = f"'__fish_seen_subcommand_from {' '.join(_OF_MODELS)}'"
    return '\n'.join([*lines, f"complete -c mmstvit -n {seen} -a '(mmstvit list --names 2>/dev/null)'", ''])
