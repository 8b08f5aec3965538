"""``mmstvit::`` in configs."""

import pytest
from fresh_python import run_fresh
from mmengine.config import Config

from mmstvit.paths import package_data


def write(folder, text):
    path = folder / 'config.py'
    path.write_text(text)
    return path


def test_inheritance_equals_the_file(tmp_path):
    """Without marks of a scope: our configs name classes of the toolbox they are for."""
    inherited = Config.fromfile(write(tmp_path, "_base_ = ['mmstvit::digits/stvit-tiny_digits.py']")).to_dict()
    assert inherited == Config.fromfile(package_data() / 'configs/digits/stvit-tiny_digits.py').to_dict()
    assert inherited['default_scope'] == 'mmpretrain' and '_scope_' not in inherited['val_evaluator']


def test_base_config_and_override(tmp_path):
    cfg = Config.fromfile(
        write(tmp_path, "_base_ = ['mmstvit::_base_/models/stvit.py']\nmodel = dict(backbone=dict(stgm_layer=6))\n")
    )
    assert cfg.model.backbone.stgm_layer == 6 and cfg.model.backbone.type == 'mmstvit.STViT'


def test_other_packages_are_as_they_were(tmp_path):
    cfg = Config.fromfile(write(tmp_path, "_base_ = ['mmpretrain::_base_/models/resnet18.py']"))
    assert cfg.model._scope_ == 'mmpretrain'


def test_configs_of_mmseg(tmp_path):
    """mmengine knows it by the name of the original line alone."""
    pytest.importorskip('mmseg')
    cfg = Config.fromfile(write(tmp_path, "_base_ = ['mmseg::_base_/models/upernet_swin.py']"))
    assert cfg.model.decode_head.type == 'UPerHead' and cfg.model._scope_ == 'mmseg'


def test_wrong_name(tmp_path):
    path = write(tmp_path, "_base_ = ['mmstvit::stvit/stvit-x_8xb128_in1k.py']")
    with pytest.raises(FileNotFoundError, match='did you mean mmstvit::stvit/stvit-._8xb128_in1k.py?'):
        Config.fromfile(path)


def test_mmengine_before_mmstvit(tmp_path):
    path = write(tmp_path, "_base_ = ['mmstvit::digits/stvit-tiny_digits.py']")
    code = f'from mmengine.config import Config\nimport mmstvit\nprint(Config.fromfile({str(path)!r}).model.type)'
    assert run_fresh(code) == 'ImageClassifier'
