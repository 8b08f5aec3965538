"""Let a whole model load published files whose names have no ``backbone.``.

mmengine's ``load_state_dict`` hands each child module only the entries under its own name, so a backbone never sees
the names of its authors' files, and mmengine offers no hook before that. This one renames for models with a backbone of
mmstvit and passes everything else on untouched; it can go when mmengine lets a module see the whole file.
"""

import wrapt


def install() -> None:
    """Put the renaming before mmengine's loading, when mmengine is imported or at once where it has been."""
    wrapt.register_post_import_hook(_wrap, 'mmengine.runner.checkpoint')


def _wrap(module) -> None:
    wrapt.wrap_function_wrapper(module, 'load_state_dict', _load_state_dict)


def _load_state_dict(wrapped, instance, args, kwargs):
    from ..converters.published import rename_for_model

    def renamed(module, state_dict, *rest, **options):
        return wrapped(module, rename_for_model(module, state_dict), *rest, **options)

    return renamed(*args, **kwargs)
