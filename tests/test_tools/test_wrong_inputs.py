"""Each wrong input of the commands: one line that says what to do, exit code 2, no traceback."""

import socket
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from run_helpers import TINY, says

from mmstvit.cli.test import main as evaluate
from mmstvit.cli.train import main as train

# Two runs of one second share mmengine's log.
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created')


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def config(tmp_path):
    """Write a config that changes or breaks the tiny one."""

    def write(text, name='changed.py'):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_missing_data_set(fails):
    for main, args in ((train, ()), (evaluate, (__file__,))):
        line = fails(main, 'stvit/stvit-s_8xb128_in1k.py', *args)
        assert 'there is no data set at data/imagenet' in line
        assert '_dataloader.dataset.data_root=PATH' in line


def test_missing_scenes_of_digits(fails):
    pytest.importorskip('mmdet')
    line = fails(train, 'digits/mask-rcnn_stvit-r_digits.py')
    assert 'at data/digits_scenes/: make it with python tools/dataset_converters/digits_scenes.py' in line


def test_empty_data_set(fails, tmp_path):
    (tmp_path / 'data/imagenet').mkdir(parents=True)
    assert 'there is no data set at data/imagenet' in fails(train, 'stvit/stvit-t_8xb128_in1k.py')
    (tmp_path / 'data/imagenet/train').mkdir()
    (tmp_path / 'data/imagenet/val').mkdir()
    assert 'check the data folder' in fails(train, 'stvit/stvit-t_8xb128_in1k.py')


def test_missing_annotation_file(fails, config):
    path = config(
        "default_scope = 'mmaction'\n"
        "model = dict(type='Recognizer2D')\n"
        "train_dataloader = dict(batch_size=1, dataset=dict(type='RepeatDataset', times=2, dataset=dict(\n"
        "    type='VideoDataset', ann_file='data/kinetics400/train.txt', pipeline=[])))\n"
        'train_cfg = dict(by_epoch=True, max_epochs=1)\n'
        "optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))\n"
    )
    line = fails(train, path)
    assert 'there is no data set at data/kinetics400/train.txt' in line
    assert '--cfg-options train_dataloader.dataset.dataset.ann_file=PATH' in line


def test_wrong_config_path(fails):
    line = fails(train, 'configs/stvit/stvit-s_8xb128_in1.py')
    assert 'there is no config' in line and 'did you mean configs/stvit/stvit-s_8xb128_in1k.py?' in line
    assert 'did you mean' not in fails(train, 'zzzz.py')


@pytest.mark.parametrize(
    'text, what',
    [
        ('model = dict(', 'SyntaxError'),
        ('model = unknown_name', 'unknown_name'),
        ('a = 1 / 0', 'division by zero'),
        ("_base_ = ['./absent.py']", 'absent.py'),
        ("_base_ = ['mmstvit::digits/stvit-tiny_digit.py']", 'did you mean mmstvit::digits/stvit-tiny_digits.py?'),
    ],
)
def test_broken_config(fails, config, text, what):
    line = fails(train, config(text))
    assert 'is no valid config' in line and what in line


def test_other_file_as_config(fails, config):
    assert 'is no valid config' in fails(train, config('hello', 'notes.txt'))


def test_unknown_scope(fails, config):
    line = fails(train, config("default_scope = 'mmfoo'"))
    assert "'mmfoo'" in line and 'mmpretrain' in line and 'mmdet' in line and 'mmaction' in line
    assert 'default_scope is None' in fails(train, config('a = 1', 'none.py'))


@pytest.mark.parametrize('scope, extra', [('mmdet', 'det'), ('mmaction', 'video'), ('mmpretrain', 'cls')])
def test_toolbox_not_installed(fails, config, monkeypatch, scope, extra):
    monkeypatch.setitem(sys.modules, scope, None)
    line = fails(train, config(f"default_scope = '{scope}'"))
    assert f'{scope} is needed' in line and f"pip install 'mmstvit[{extra}]'" in line


def test_base_of_toolbox_not_installed(fails, config, monkeypatch):
    monkeypatch.setattr('mmengine.config.config.is_installed', lambda package: False)
    line = fails(train, config("_base_ = ['mmdet::_base_/default_runtime.py']"))
    assert 'mmdet is not installed' in line and "pip install 'mmstvit[det]'" in line


def test_config_without_parts(fails, config, trained):
    path = config("default_scope = 'mmpretrain'")
    assert 'has no train_dataloader' in fails(train, path)
    assert 'has no test_dataloader' in fails(evaluate, path, trained.checkpoint)


@pytest.mark.parametrize(
    'option, what',
    [
        ('trian_cfg.max_epochs=1', 'did you mean train_cfg?'),
        ('nonsense=1', 'the config has no nonsense'),
        ('nonsense', 'takes KEY=VALUE, got nonsense'),
        ('train_cfg=3', 'should be a Loop object or dict, but got 3'),
        ('param_scheduler.9.end=3', '--cfg-options do not fit'),
        ('model.backbone.stgm_layr=2', 'STViT has no setting stgm_layr; did you mean stgm_layer?'),
        ('model.backbone.flux=2', 'STViT has no setting flux; it takes arch, img_size, '),
        ('model.bakbone.stgm_layer=2', 'ImageClassifier has no setting bakbone; did you mean backbone?'),
        ('model.head.topq=1', 'VisionTransformerClsHead has no setting topq; did you mean topk?'),
        ('train_dataloader.dataset.splitt=val', 'Digits has no setting splitt; did you mean split?'),
        ('train_cfg.max_epoch=2', 'EpochBasedTrainLoop has no setting max_epoch; did you mean max_epochs?'),
        ('optim_wrapper.optimizer.lrr=1', 'AdamW has no setting lrr; did you mean lr?'),
        ('model.backbone.stgm_layer=11', 'stgm_layer=11'),
        ('model.backbone.semantic_grid=(99,99)', 'semantic_grid=(99, 99)'),
        ('model.backbone.out_type=foo', "out_type='foo' is unknown"),
        ('model.backbone.arch=foo', "arch='foo' is unknown"),
        ('model.backbone.pooling=foo', "pooling='foo' is unknown"),
        ('model.backbone.type=mmstvit.STVit', 'did you mean mmstvit.STViT?'),
        ('model.backbone.type=STViTT', 'did you mean mmstvit.STViT?'),
        ('model.type=ImageClasifier', 'did you mean ImageClassifier?'),
        ('optim_wrapper.optimizer.type=AdamX', 'did you mean Adamax?'),
        ('train_dataloader.dataset.type=Qqqqqq', 'custom_imports'),
    ],
)
def test_wrong_options(fails, tiny_config, tmp_path, option, what):
    line = fails(train, tiny_config, '--work-dir', tmp_path / 'work', '--cfg-options', option)
    assert what in line


@pytest.fixture
def pre_trained(tiny_config, tmp_path):
    """Arguments of a training that begins from a checkpoint."""

    def arguments(checkpoint):
        return tiny_config, '--work-dir', tmp_path / 'work', '--cfg-options', f'load_from={checkpoint}'

    return arguments


def test_missing_checkpoint(fails, trained, pre_trained, tmp_path):
    absent = tmp_path / 'absent.pth'
    for line in (
        fails(evaluate, trained.config, absent),
        fails(train, *pre_trained(absent)),
        fails(train, trained.config, '--work-dir', tmp_path, '--resume', absent),
    ):
        assert f'there is no checkpoint {absent}' in line
    line = fails(
        train,
        trained.config,
        '--work-dir',
        tmp_path / 'w',
        '--cfg-options',
        'model.init_cfg.type=Pretrained',
        f'model.init_cfg.checkpoint={absent}',
    )
    assert f'cannot read the checkpoint {absent}' in line


@pytest.mark.parametrize('content', ['text', 'empty', 'truncated', 'list'])
def test_no_checkpoint_in_file(fails, trained, pre_trained, tmp_path, content):
    path = tmp_path / 'file.pth'
    if content == 'text':
        path.write_text('<html>not here</html>')
    elif content == 'empty':
        path.touch()
    elif content == 'truncated':
        path.write_bytes(trained.checkpoint.read_bytes()[:5000])
    else:
        torch.save([1, 2], path)
    for line in (fails(evaluate, trained.config, path, '--work-dir', tmp_path), fails(train, *pre_trained(path))):
        assert str(path) in line
        assert ('it holds a list and no weights' if content == 'list' else 'torch.save has not written it') in line


def test_checkpoint_of_another_network(fails, trained, pre_trained, tmp_path):
    path = tmp_path / 'resnet18.pth'
    torch.save(torchvision.models.resnet18().state_dict(), path)
    for line in (fails(evaluate, trained.config, path, '--work-dir', tmp_path), fails(train, *pre_trained(path))):
        assert str(path) in line and 'of another model' in line and 'bn1.bias' in line


def test_checkpoint_of_another_size(fails, trained, tmp_path):
    options = ('--cfg-options', 'model.backbone.arch.embed_dims=64', 'model.head.in_channels=64')
    line = fails(evaluate, trained.config, trained.checkpoint, '--work-dir', tmp_path, *options)
    assert str(trained.checkpoint) in line and 'of another model' in line


def test_checkpoint_of_other_classes(fails, trained, tmp_path):
    args = (trained.config, trained.checkpoint, '--work-dir', tmp_path, '--cfg-options')
    assert 'model.head.num_classes=7, and the data has 10 classes' in fails(evaluate, *args, 'model.head.num_classes=7')


def test_checkpoint_of_another_patch_size(fails, trained, tmp_path):
    args = (trained.config, trained.checkpoint, '--work-dir', tmp_path, '--cfg-options')
    line = fails(evaluate, *args, 'model.backbone.patch_size=4')
    assert 'backbone.patch_embed.projection.weight has another shape than the config says' in line


def test_checkpoint_of_another_network_without_our_backbone(fails, config, trained, tmp_path):
    path = config("""
_base_ = ['mmstvit::digits/stvit-tiny_digits.py']
model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(_delete_=True, type='LinearClsHead', num_classes=10, in_channels=512))
""")
    line = fails(evaluate, path, trained.checkpoint, '--work-dir', tmp_path)
    assert 'of another model: 0 of the' in line


def test_resume_of_bare_weights(fails, trained, tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({'state_dict': torch.load(trained.checkpoint, weights_only=False)['state_dict']}, path)
    line = fails(train, trained.config, '--work-dir', tmp_path, '--resume', path)
    assert f'start from its weights with --cfg-options load_from={path}' in line


def test_url_not_found(fails, trained, pre_trained, web, tmp_path):
    url = web.url('absent.pth')
    for line in (fails(evaluate, trained.config, url, '--work-dir', tmp_path), fails(train, *pre_trained(url))):
        assert url in line and '404' in line and 'check the address' in line


def test_url_refused(fails, trained, tmp_path):
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        port = unused.getsockname()[1]
    url = f'http://127.0.0.1:{port}/model.pth'
    line = fails(evaluate, trained.config, url, '--work-dir', tmp_path)
    assert url in line and 'refused' in line and 'check the address and the network' in line


def test_amp_without_gpu(fails, tiny_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert '--amp needs a GPU' in fails(train, tiny_config, '--amp')


def test_auto_scale_lr_without_base(fails, config):
    path = config(
        "_base_ = ['mmstvit::digits/stvit-tiny_digits.py']\nauto_scale_lr = dict(_delete_=True, enable=False)"
    )
    assert 'base_batch_size' in fails(train, path, '--auto-scale-lr')


@pytest.mark.parametrize('launcher, what', [('pytorch', 'torchrun'), ('slurm', 'needs a GPU'), ('mpi', 'needs a GPU')])
def test_launcher_without_its_processes(fails, tiny_config, tmp_path, monkeypatch, launcher, what):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    line = fails(train, tiny_config, '--work-dir', tmp_path, '--launcher', launcher)
    assert what in line and 'use tools/dist_train.sh' in line


def test_missing_file_in_a_worker(fails, config, tmp_path):
    """Errors of data loader workers bring their own traceback as text: the last line of it is enough."""
    path = config(
        "_base_ = ['mmstvit::digits/stvit-tiny_digits.py']\n"
        'train_dataloader = dict(num_workers=1, dataset=dict(\n'
        "    _delete_=True, type='CustomDataset', data_root='pictures', ann_file='list.txt',\n"
        "    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))\n"
    )
    (tmp_path / 'pictures').mkdir()
    (tmp_path / 'pictures' / 'list.txt').write_text('absent.png 0\nabsent.png 1\n')
    line = fails(train, path, '--work-dir', 'work')
    assert 'pictures/absent.png' in line and len(line) < 400


def test_wrong_out_and_interval(fails, trained, tmp_path):
    args = (trained.config, trained.checkpoint, '--work-dir', tmp_path)
    assert '*.json' in fails(evaluate, *args, '--out', 'x.txt')
    assert '--interval 0' in fails(evaluate, *args, '--show-dir', 'drawn', '--interval', '0')


def test_unknown_arguments_show_usage(fails, tiny_config):
    assert 'unrecognized arguments: --rseume' in fails(train, tiny_config, '--rseume')


def test_fault_in_a_run_leaves_its_traceback_in_the_log(fails, config, tmp_path):
    """What no line foresees still ends in one line, and nothing is lost."""
    (tmp_path / 'faulty_hook.py').write_text(
        'from mmengine.hooks import Hook\n'
        'from mmengine.registry import HOOKS\n'
        '@HOOKS.register_module()\n'
        'class FaultyHook(Hook):\n'
        '    def before_train(self, runner):\n'
        '        runner.not_an_attribute\n'
    )
    path = config(
        "_base_ = ['./tiny.py']\n"
        "custom_imports = dict(imports=['faulty_hook'])\n"
        "custom_hooks = [dict(type='FaultyHook')]\n",
        'faulty.py',
    )
    (tmp_path / 'tiny.py').write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        line = fails(train, path, '--work-dir', 'work')
    assert 'not_an_attribute' in line and 'AttributeError' in line
    log = line.split('the traceback is in ')[1].rstrip(')')
    assert 'before_train' in Path(log).read_text()


def test_traceback_on_demand(tiny_config, capsys, monkeypatch):
    monkeypatch.setenv('MMSTVIT_TRACEBACK', '1')
    with pytest.raises(SystemExit):
        train([str(tiny_config), '--cfg-options', 'nonsense=1'])
    err = capsys.readouterr().err
    assert 'Traceback' in err and err.strip().splitlines()[-1].startswith('error: ')


@pytest.mark.parametrize(
    'tool, option', [('train.py', ['--resume']), pytest.param('test.py', [], marks=pytest.mark.long)]
)
def test_process_ends_with_code_2(tool, option, run_tool, tiny_config, tmp_path):
    """The same at the outside, once for each command: nothing is printed after the line."""
    result = run_tool(tool, tiny_config, *option, 'no.pth', '--work-dir', tmp_path, check=False)
    assert result.returncode == 2
    assert says(result.stderr.splitlines()[-1], 'error: ', ' no.pth', 'URL')
    assert 'Traceback' not in result.stdout + result.stderr
