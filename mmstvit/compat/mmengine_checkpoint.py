"""Read checkpoints without running what is in them, and rename published ones, wherever mmengine loads one.

mmengine tries PyTorch's weights-only loading, with ``getattr`` among the allowed functions, and unpickles everything
where that refuses; downloads it unpickles at once, whatever their hash. Its ``CheckpointLoader`` is where
``load_from``, ``init_cfg``, resuming and the toolboxes' inference end. Local files have a loader registered there. The
others (web, model zoos, object stores) each find a file in their own way and then call one of two functions of
mmengine's module, which are replaced. That can go when mmengine refuses by itself, and checks hashes.

Its ``load_state_dict`` hands each child module only the entries under its own name, so a backbone never sees names
that have no ``backbone.``, as in its authors' files, and mmengine offers no hook before that. The one here renames for
models with a backbone of mmstvit and passes everything else on untouched; it can go when mmengine lets a module see the
whole file.
"""

import os.path

import wrapt


def install() -> None:
    """Change mmengine's loading, when ``mmengine.runner.checkpoint`` is imported or at once where it has been."""
    wrapt.register_post_import_hook(_replace, 'mmengine.runner.checkpoint')


def _replace(module) -> None:
    load_entries = module.load_state_dict

    def load(file, map_location=None, **kwargs):
        from ..io.checkpoints import load

        return load(file, map_location, **kwargs)

    def load_url(url, **kwargs):
        from ..io.checkpoints import load_url

        return load_url(url, **kwargs)

    def load_from_local(filename, map_location):
        filename = os.path.expanduser(filename)
        if not os.path.isfile(filename):
            raise FileNotFoundError(f'cannot read the checkpoint {filename}: there is no such file')
        return load(filename, map_location)

    def load_state_dict(model, state_dict, *args, **kwargs):
        from ..converters.published import rename_for_model

        return load_entries(model, rename_for_model(model, state_dict), *args, **kwargs)

    module.CheckpointLoader.register_scheme('', load_from_local, force=True)
    module._safe_torch_load, module.load_url, module.load_state_dict = load, load_url, load_state_dict
