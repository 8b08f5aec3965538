"""Let a whole model load published files whose names have no ``backbone.``.

mmengine's ``load_state_dict`` hands each child module only the entries under its own name, so a backbone never sees
the names of its authors' files, and mmengine offers no hook before that. This one renames for models with a backbone of
mmstvit and passes everything else on untouched; it can go when mmengine lets a module see the whole file.
"""

import wrapt


def install() -> None:
    """Put the renaming before mmengine's loading, when mmengine is imported or at once where it has been."""
    wrapt.register_post_import_hook(_replace, 'mmengine.runner.checkpoint')


def _replace(module) -> None:
    load = module.load_state_dict

    def load_state_dict(model, state_dict, *args, **kwargs):
        from ..converters.published import rename_for_model

        return load(model, rename_for_model(model, state_dict), *args, **kwargs)

    module.load_state_dict = load_state_dict
