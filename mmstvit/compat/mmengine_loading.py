"""Read checkpoints without running what is in them, wherever mmengine reads one.

mmengine tries PyTorch's weights-only loading, with ``getattr`` among the allowed functions, and unpickles everything
where that refuses; downloads it unpickles at once, whatever their hash. Its ``CheckpointLoader`` is where
``load_from``, ``init_cfg``, resuming and the toolboxes' inference end, so the functions that it reads with are
replaced. It can go when mmengine refuses by itself, and checks hashes.
"""

import os.path

import wrapt


def install() -> None:
    """Replace mmengine's reading, when ``mmengine.runner.checkpoint`` is imported or at once where it has been."""
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
            raise FileNotFoundError(f'{filename} can not be found.')
        return load(filename, map_location)

    module._safe_torch_load, module.load_url = load, load_url
    # mmengine before 0.10.8 has no function for it.
    module.CheckpointLoader.register_scheme('', load_from_local, force=True)
    module.load_from_local = load_from_local
