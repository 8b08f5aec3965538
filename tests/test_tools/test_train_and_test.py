"""tools/train.py and tools/test.py on a small digits run: what is trained is tested, stopped, resumed and served."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from run_helpers import read_scalars

from mmstvit import get_model, inference_model
from mmstvit.cli import test as test_cli
from mmstvit.cli import train as train_cli
from mmstvit.datasets import digit_scans

ITERATIONS = 30  # of an epoch: 600 images in batches of 20


def train(*args):
    train_cli.main([str(arg) for arg in args])


def parsed(cli, *args):
    args = cli.parse_args([str(arg) for arg in args])
    return cli.merge_args(cli.load_config(args), args)


def evaluate(*args):
    test_cli.main([str(arg) for arg in args])


def evaluated(config, checkpoint, folder, *args):
    evaluate(config, checkpoint, '--work-dir', folder / 'w', '--out', folder / 'metrics.json', *args)
    return json.loads((folder / 'metrics.json').read_text())


def test_trained_checkpoint_tests_as_logged(trained, tmp_path):
    assert trained.top1 > 50  # chance is 10: the checkpoint holds something that can be lost
    drawn = tmp_path / 'drawn'
    metrics = evaluated(trained.config, trained.checkpoint, tmp_path, '--show-dir', drawn, '--interval', 60)
    assert metrics['accuracy/top1'] == pytest.approx(trained.top1, abs=1e-4)
    assert sorted(path.name for path in drawn.iterdir()) == ['0.png', '120.png', '60.png']


def test_checkpoint_by_url(trained, web, tmp_path):
    shutil.copy(trained.checkpoint, web.folder / 'served.pth')
    metrics = evaluated(trained.config, web.url('served.pth'), tmp_path)
    assert metrics['accuracy/top1'] == pytest.approx(trained.top1, abs=1e-4)


def test_a_confusion_matrix_in_json(trained, tmp_path):
    """A tensor becomes lists."""
    config = tmp_path / 'matrix.py'
    config.write_text(
        f'_base_ = [{str(trained.config)!r}]\n'
        "test_evaluator = dict(_delete_=True, type='mmpretrain.ConfusionMatrix', num_classes=10)\n"
    )
    metrics = evaluated(config, trained.checkpoint, tmp_path)
    (matrix,) = metrics.values()
    assert np.shape(matrix) == (10, 10) and np.sum(matrix) == 150
    assert 100 * np.trace(matrix) / 150 == pytest.approx(trained.top1, abs=1e-4)


def test_metrics_that_cannot_be_written_are_told_before_the_test(trained, tmp_path, fails):
    (tmp_path / 'metrics.json').mkdir()
    command = (trained.config, trained.checkpoint, '--work-dir', tmp_path, '--out', tmp_path / 'metrics.json')
    assert 'it is a folder' in fails(test_cli.main, *command)
    assert not list(tmp_path.glob('*/*.log'))


def test_predictions_in_pickle(trained, tmp_path):
    out = tmp_path / 'new_folder' / 'predictions.pkl'
    evaluate(trained.config, trained.checkpoint, '--work-dir', tmp_path / 'w', '--out', out)
    predictions = pickle.loads(out.read_bytes())
    scores = np.stack([np.asarray(p['pred_score']) for p in predictions])
    labels = np.array([int(p['gt_label']) for p in predictions])
    assert scores.shape == (150, 10)
    assert np.allclose(scores.sum(1), 1, atol=1e-4)
    assert 100 * (scores.argmax(1) == labels).mean() == pytest.approx(trained.top1, abs=1e-4)


def test_augmented_views_are_averaged(trained, tmp_path):
    """By default over each image and its mirror image."""
    scores = []
    for name, options in (('plain', ()), ('augmented', ('--tta',))):
        out = tmp_path / f'{name}.pkl'
        args = (trained.config, trained.checkpoint, '--work-dir', tmp_path / name, '--out', out, *options)
        evaluate(*args, '--cfg-options', 'test_dataloader.dataset.indices=20')
        predictions = pickle.loads(out.read_bytes())
        scores.append(np.stack([np.asarray(prediction['pred_score']) for prediction in predictions]))
    model, (images, _) = get_model(trained.config, trained.checkpoint), digit_scans('val')
    mirrored = inference_model(model, [np.repeat(image[:, ::-1, None], 3, axis=2) for image in images[:20]])
    expected = (scores[0] + np.stack([one['pred_scores'] for one in mirrored])) / 2
    np.testing.assert_allclose(scores[1], expected, atol=1e-5)
    assert not np.allclose(scores[1], scores[0], atol=1e-3)


def test_testing_leaves_a_resume_setting_alone(trained, tmp_path):
    """A config that says resume=True still tests: only the weights are wanted."""
    args = (trained.config, trained.checkpoint, '--work-dir', tmp_path, '--cfg-options', 'resume=True')
    assert parsed(test_cli, *args).resume is False


def check_resumed(work_dir, first, last, scalars):
    """Training went on with epoch ``first`` and ended with ``last``, its optimizer too."""
    trained = [line for line in scalars if 'loss' in line]
    assert {line['epoch'] for line in trained} == set(range(first, last + 1))
    assert trained[0]['step'] == (first - 1) * ITERATIONS + 10
    checkpoint = torch.load(work_dir / f'epoch_{last}.pth', weights_only=False)
    assert checkpoint['meta']['epoch'] == last
    assert checkpoint['meta']['iter'] == last * ITERATIONS
    steps = {int(state['step']) for state in checkpoint['optimizer']['state'].values()}
    assert steps == {last * ITERATIONS}


def test_resume_from_named_checkpoint(trained, tmp_path):
    train(trained.config, '--work-dir', tmp_path, '--resume', trained.work_dir / 'epoch_3.pth')
    resumed = read_scalars(tmp_path)
    check_resumed(tmp_path, 4, 4, resumed)
    first, again = (next(line['loss'] for line in scalars if 'loss' in line) for scalars in (trained.scalars, resumed))
    assert again < first - 0.1  # it did not begin anew


def test_resume_with_nothing_to_resume(trained, tmp_path, capsys):
    """The same command starts a job and takes it up again, with the weights that it starts from."""
    args = (trained.config, '--work-dir', tmp_path, '--resume', '--cfg-options', f'load_from={trained.checkpoint}')
    cfg = parsed(train_cli, *args)
    assert 'training starts from the beginning' in capsys.readouterr().out
    assert not cfg.get('resume') and cfg.load_from == str(trained.checkpoint)
    cfg = parsed(train_cli, trained.config, '--work-dir', trained.work_dir, '--resume')
    assert cfg.resume and cfg.load_from == str(trained.checkpoint)


def test_a_finished_training_is_not_resumed(trained, capsys):
    """By epochs or by iterations: nothing is trained or written."""
    before = sorted(trained.work_dir.rglob('*'))
    by_iterations = (
        'train_cfg._delete_=True',
        'train_cfg.type=IterBasedTrainLoop',
        f'train_cfg.max_iters={ITERATIONS}',
    )
    for options in ((), ('--cfg-options', *by_iterations)):
        train(trained.config, '--work-dir', trained.work_dir, '--resume', *options)
        assert 'training is finished' in capsys.readouterr().out
    assert sorted(trained.work_dir.rglob('*')) == before
    cfg = parsed(
        train_cli, trained.config, '--work-dir', trained.work_dir, '--resume', '--cfg-options', 'train_cfg.max_epochs=5'
    )
    assert cfg.resume and cfg.load_from == str(trained.checkpoint)


def test_a_training_that_was_killed_after_its_last_checkpoint(trained, tmp_path):
    """It is finished, but for the name of that checkpoint, which was being written."""
    shutil.copytree(trained.work_dir, tmp_path, dirs_exist_ok=True)
    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text(str(tmp_path / 'epoch_1.pth'))
    (tmp_path / '.99999999.last_checkpoint').write_text('epo')
    train(trained.config, '--work-dir', tmp_path, '--resume')
    assert pointer.read_text() == str(tmp_path / trained.checkpoint.name) and not list(tmp_path.glob('.*'))


def test_a_training_that_was_stopped_in_its_last_validation(trained, tmp_path, capsys):
    """There is more to do."""
    checkpoint = torch.load(trained.checkpoint, weights_only=False)
    checkpoint['position']['validate'] = True
    torch.save(checkpoint, tmp_path / trained.checkpoint.name)
    train(trained.config, '--work-dir', tmp_path, '--resume')
    assert 'training is finished' not in capsys.readouterr().out
    assert any('accuracy/top1' in line for line in read_scalars(tmp_path))


ONE_EPOCH = ('train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=200')


def test_auto_scale_lr(tiny_config, tmp_path):
    """The base batch size of the config is 32, its learning rate 2e-3, its batches 20."""
    train(tiny_config, '--work-dir', tmp_path, '--auto-scale-lr', '--cfg-options', *ONE_EPOCH)
    assert [line['lr'] for line in read_scalars(tmp_path) if 'lr' in line] == [pytest.approx(2e-3 * 20 / 32)]


def test_no_validate(tiny_config, tmp_path):
    train(tiny_config, '--work-dir', tmp_path, '--no-validate', '--cfg-options', *ONE_EPOCH)
    scalars = read_scalars(tmp_path)
    assert [line['lr'] for line in scalars if 'lr' in line] == [pytest.approx(2e-3)]  # no scaling unasked
    assert not any('accuracy/top1' in line for line in scalars)


def test_options_reach_the_model_and_work_dir_its_place(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = (*ONE_EPOCH, 'model.backbone.semantic_grid=(1,3)', 'model.backbone.stgm_layer=2')
    train(tiny_config, '--no-validate', '--cfg-options', *options)
    work_dir = tmp_path / 'work_dirs' / 'tiny'  # the default
    weights = torch.load(work_dir / 'epoch_1.pth', weights_only=False)['state_dict']
    assert next(w for name, w in weights.items() if name.endswith('global_centers')).shape == (1, 1, 3, 32)
    assert Config.fromfile(work_dir / 'tiny.py').model.backbone.stgm_layer == 2


def test_load_from_starts_from_the_weights(trained, tmp_path):
    options = (*ONE_EPOCH, f'load_from={trained.checkpoint}')
    train(trained.config, '--work-dir', tmp_path, '--cfg-options', *options)
    scalars = read_scalars(tmp_path)
    assert [line['epoch'] for line in scalars if 'loss' in line] == [1]
    assert [line['accuracy/top1'] for line in scalars if 'accuracy/top1' in line][0] > trained.top1 - 15


def test_amp_where_there_is_a_gpu(tiny_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
    cfg = parsed(train_cli, tiny_config, '--amp')
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.env_cfg.dist_cfg.backend == 'nccl'
    assert cfg.train_dataloader.pin_memory is True
    assert parsed(train_cli, tiny_config).optim_wrapper.get('type', 'OptimWrapper') == 'OptimWrapper'


def test_settings_for_a_gpu_are_replaced_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    path = tmp_path / 'amp.py'
    path.write_text(
        "_base_ = ['mmstvit::digits/stvit-tiny_digits.py']\n"
        "optim_wrapper = dict(type='AmpOptimWrapper', loss_scale=512., dtype='float16')\n"
        'train_dataloader = dict(num_workers=2)\n'
    )
    cfg = parsed(train_cli, path)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert not {'loss_scale', 'dtype'} & set(cfg.optim_wrapper)
    assert cfg.env_cfg.dist_cfg.backend == 'gloo'
    assert cfg.train_dataloader.persistent_workers is True and cfg.val_dataloader.persistent_workers is False
    path.write_text(
        "default_scope = 'mmpretrain'\nmodel, train_dataloader, train_cfg, optim_wrapper = [dict(a=1)] * 4\n"
    )
    assert parsed(train_cli, path).env_cfg.dist_cfg.backend == 'gloo'  # mmengine's own default is nccl
