"""Pictures during training: they go to mmengine's backends, and training is what it is without them."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.runner import get_priority, load_checkpoint
from run_helpers import TINY, run_here

from mmstvit import get_model
from mmstvit.datasets import digit_scans
from mmstvit.engine.token_pictures import TokenPicturesHook
from mmstvit.visualization import token_maps
from mmstvit.visualization.pictures import sheet

VAL = 'val_dataloader = dict(batch_size=50, dataset=dict(indices=30))\n'
PICTURES = "custom_hooks = [dict(type='mmstvit.TokenPicturesHook', images=(2, 0), interval=2)]\n"


def train(monkeypatch, folder, more=''):
    folder.mkdir()
    config = folder / 'config.py'
    text = TINY.replace('dataset=dict(indices=600)', 'dataset=dict(indices=60)')
    text = text.replace('val_dataloader = dict(batch_size=50, dataset=dict(indices=150))', VAL)
    text = text.replace('max_epochs=4', 'max_epochs=3')
    # Two runs of one second would have one name, and one history of losses.
    config.write_text(text + f'randomness = dict(seed=1)\nexperiment_name = {folder.name!r}\n' + more)
    run_here(monkeypatch, 'train.py', str(config), '--work-dir', str(folder / 'run'))
    return folder / 'run', torch.load(folder / 'run' / 'epoch_3.pth', weights_only=False)


def test_training_is_the_same_and_pictures_go_to_the_backends(tmp_path, monkeypatch):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, plain = train(monkeypatch, tmp_path / 'plain')
    backends = "vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]"
    more = PICTURES + f"visualizer = dict(type='UniversalVisualizer', {backends})\n"
    work_dir, pictured = train(monkeypatch, tmp_path / 'pictured', more)
    assert plain['state_dict'].keys() == pictured['state_dict'].keys()
    for name, value in plain['state_dict'].items():
        assert torch.equal(value, pictured['state_dict'][name]), name
    scalars = [plain['message_hub']['log_scalars'], pictured['message_hub']['log_scalars']]
    for name in ('train/loss', 'val/accuracy/top1'):
        one, two = (kept[name].data for kept in scalars)
        assert np.array_equal(one, two) and len(one[0])

    # Three validations, of which the first and the third are drawn; three iterations an epoch.
    files = {path.name: cv2.imread(str(path)) for path in work_dir.rglob('vis_image/*.png')}
    assert set(files) == {'semantic_tokens_3.png', 'semantic_tokens_9.png'}
    events = EventAccumulator(str(next(work_dir.rglob('events*')).parent), size_guidance={'images': 0})
    events.Reload()
    assert events.Tags()['images'] == ['semantic_tokens']
    steps = {event.step: event for event in events.Images('semantic_tokens')}
    assert set(steps) == {3, 9}
    for step, event in steps.items():
        drawn = cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(drawn, files[f'semantic_tokens_{step}.png'])
    assert not np.array_equal(*files.values())


def test_the_picture_is_of_the_network_that_was_validated(tmp_path, monkeypatch):
    """Averaged weights, where there are some: the last picture is that of the saved averages."""
    more = (
        "custom_hooks = [dict(type='mmstvit.TokenPicturesHook', images=(2, 0)), dict(type='EMAHook', momentum=0.02)]\n"
    )
    work_dir, checkpoint = train(monkeypatch, tmp_path / 'averaged', more)
    assert get_priority(TokenPicturesHook.priority) < get_priority(EMAHook.priority)
    model = get_model(str(work_dir.parent / 'config.py'))
    # mmengine keeps the averages as the state_dict, and what was trained beside them.
    load_checkpoint(model, str(work_dir / 'epoch_3.pth'))
    trained = {name.removeprefix('module.'): value for name, value in checkpoint['ema_state_dict'].items()}
    assert not torch.equal(trained['head.layers.head.weight'], checkpoint['state_dict']['head.layers.head.weight'])
    scans = digit_scans('val')[0]
    maps = [token_maps(model, np.repeat(scans[i][..., None], 3, -1)) for i in (2, 0)]
    drawn = cv2.imread(str(next(work_dir.rglob('semantic_tokens_9.png'))))[..., ::-1]
    assert np.array_equal(drawn, sheet(maps, ['sample 2', 'sample 0']))


def test_random_numbers_of_training_are_left_alone(tiny_config):
    class Random(list):
        def __getitem__(self, index):
            return dict(inputs=torch.rand(3, 32, 32), data_samples=None)

    model, drawn = get_model(str(tiny_config)), []
    runner = SimpleNamespace(
        model=model,
        iter=5,
        val_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=Random([0] * 3))),
        visualizer=SimpleNamespace(add_image=lambda *args: drawn.append(args)),
    )
    before = torch.get_rng_state()
    TokenPicturesHook(images=(0, 1), name='pictures').after_val_epoch(runner)
    assert torch.equal(before, torch.get_rng_state())
    assert len(drawn) == 1 and drawn[0][0] == 'pictures' and drawn[0][2] == 5


@pytest.mark.parametrize(
    'more,said',
    [
        (PICTURES.replace('(2, 0)', '(2, 30)'), 'images=(2, 30): the validation data set has 30 samples, no 30'),
        (
            PICTURES.replace('interval=2', 'interval=0'),
            'interval=0 and images=(2, 0): it takes at least 1 and one image',
        ),
        (
            PICTURES + 'model["backbone"].update(semantic_grid=None, stgm_layer=4)\n',
            'no semantic',
        ),
        (PICTURES + 'val_cfg = val_dataloader = val_evaluator = None\n', 'draws after validations, and there are none'),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_training(more, said, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        train(monkeypatch, tmp_path / 'wrong', more)
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.rglob('epoch_*.pth'))
