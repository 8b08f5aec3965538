"""Read checkpoints without running what is in them, wherever mmengine reads one.

mmengine tries PyTorch's weights-only loading, with ``getattr`` among the allowed functions, and unpickles everything
where that refuses; downloads it unpickles at once, whatever their hash. Its ``CheckpointLoader`` is where
``load_from``, ``init_cfg``, resuming and the toolboxes' inference end. Local files have a loader registered there. The
others (web, model zoos, object stores) each find a file in their own way and then call one of two functions of
mmengine's module, which are replaced. It can go when mmengine refuses by itself, and checks hashes.
"""

import os.path

import wrapt


def install() -> None:
    """Change mmengine's reading, when ``mmengine.runner.checkpoint`` is imported or at once where it has been."""
    wrapt.register_post_import_hook(_replace, 'mmengine.runner.checkpoint')


def _replace(module) -> None:
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

    module.CheckpointLoader.register_scheme('', load_from_local, force=True)
    module._safe_torch_load, module.load_url = load, load_url
