"""The evidence on recovery: its configs, and what the page says of the figures."""

import json

import pytest
import torch
from run_helpers import DENSE

from mmstvit import get_model
from mmstvit.models.reduction import reduction_of
from projects.evidence import recovery, recovery_report
from projects.evidence.recovery_measure import Measured, variants
from projects.evidence.runs import Estimate
from projects.evidence.store import config_path

pytest.importorskip('mmpretrain')


@pytest.fixture(scope='module')
def dense(tmp_path_factory):
    """A config without semantic tokens and a checkpoint of it."""
    folder = tmp_path_factory.mktemp('dense')
    (folder / 'dense.py').write_text(
        DENSE + "custom_hooks = [dict(type='EMAHook'), dict(type='mmstvit.NonFiniteGuardHook')]\n"
    )
    model = get_model(str(folder / 'dense.py'))
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'dense.pth')
    return folder


def arguments(dense, *words):
    given = ['--config', str(dense / 'dense.py'), '--teachers', str(dense / 'dense.pth'), '--out', str(dense / 'out')]
    return recovery.parse_args([*given, *words])


def test_configs_of_recoveries(dense):
    """Each differs from the dense one in what recovery is, and can be built; the most wanted come first."""
    args = arguments(
        dense, '--separate', '0.7', '0.5', '--epochs', '3', '--stvit-config', 'configs/digits/stvit-tiny_digits.py'
    )
    cfg, folder = recovery.read_config(args.config, args), dense / 'configs'
    folder.mkdir()
    runs = recovery.plan(args, cfg, folder)
    assert list(runs) == ['ToMe_elastic_0', 'STViT_0', 'ToMe_0.7_0', 'ToMe_0.5_0']
    assert all(run.name == name and run.overrides == {} for name, run in runs.items())
    assert config_path(runs['STViT_0'].config) == folder / 'STViT_0.py'
    own = recovery.read_config(f'{runs["ToMe_elastic_0"].config}.py', args)
    assert own.model.budget == (0.35, 1.0) and own.model.teacher_ckpt == own.load_from == str(dense / 'dense.pth')
    assert own.optim_wrapper.optimizer.lr == pytest.approx(0.2 * cfg.optim_wrapper.optimizer.lr)
    assert own.train_cfg.max_epochs == 3 and [hook.type for hook in own.custom_hooks] == ['mmstvit.NonFiniteGuardHook']
    assert cfg.model.type == 'ImageClassifier'  # the dense one is as it was
    separate = recovery.read_config(f'{runs["ToMe_0.7_0"].config}.py', args)
    assert reduction_of(get_model(separate)).options == dict(budget=0.7) and 'budget' not in separate.model


def test_figures_are_measured_once(dense):
    """Of all methods that the network takes; another checkpoint is measured anew."""
    path, lines = dense / 'out.json', []
    made = Measured(path, dense / 'dense.py', 'cpu', 10, lines.append)
    made.untrained(0, str(dense / 'dense.pth'))
    stored = json.loads(path.read_text())['untrained']['0']
    names = variants(get_model(str(dense / 'dense.py')))
    assert {'ToMe', 'ToFu', 'Random', 'GridPool'} <= set(stored['methods']) == set(names)
    for point in stored['methods']['ToMe']:
        assert point['share'] <= point['budget'] and 0 <= point['top1'] <= 1
    for images, measured in ((10, 1), (9, 2)):
        Measured(path, dense / 'dense.py', 'cpu', images, lines.append).untrained(0, str(dense / 'dense.pth'))
        assert len(lines) == measured and json.loads(path.read_text())['untrained']['0']['images'] == images


def made_up():
    """Two seeds; half of what ToMe loses at 0.5 is won back by the first elastic checkpoint, all by the second."""

    def points(*top1):
        return [dict(budget=b, share=b - 0.01, top1=t, tokens=[1]) for b, t in zip((0.7, 0.5), top1)]

    untrained = {
        '0': dict(dense=0.9, images=100, methods=dict(ToMe=points(0.88, 0.7), Random=points(0.6, 0.5))),
        '1': dict(dense=0.92, images=100, methods=dict(ToMe=points(0.9, 0.72), Random=points(0.6, 0.4))),
    }
    whole = [dict(budget=1.0, share=1.0, top1=0.91, tokens=[1])]
    elastic = {
        'ToMe elastic 0': dict(points=whole + points(0.9, 0.8)),
        'ToMe elastic 1': dict(points=whole + points(0.9, 0.92)),
    }
    separate = {'ToMe 0.5 0': dict(points=points(0, 0.85)[1:])}
    stvit = {'distilled 0': dict(top1=0.88), 'scratch 0': dict(top1=0.86)}
    settings = dict(
        network='a_vit', epochs=8, dense_epochs=80, elastic=[0.35, 1.0], settings=dict(lr_factor=0.2), command='python'
    )
    return dict(untrained=untrained, recovered=elastic | separate, stvit=stvit, **settings)


def test_page_has_the_figures(tmp_path):
    data = made_up()
    assert recovery_report.won_back(data, 'ToMe', 'elastic', 0.5) == pytest.approx([0.5, 1.0])
    (tmp_path / 'recovery.json').write_text(json.dumps(data))
    assert recovery.main(['--page-only', '--page', str(tmp_path / 'recovery.md')]) == 0
    page = (tmp_path / 'recovery.md').read_text()
    assert 'a_vit, the dense network, trained for 80 epochs, has a top-1 of 91.0 ± 1.4 % on 100 test images' in page
    assert '| Random (control) | 0.69, 0.49 | 60.0 ± 0.0 | 45.0 ± 7.1 |' in page
    assert '| 0.5 | 71.0 ± 1.4 | 86.0 ± 8.5 | 75 ± 35 | 85.0 | 75 | -5.00 |' in page  # the seed that has both
    assert '| STViT distilled from it | 1 | 88.0 |' in page
    for name in ('recovery_untrained.png', 'recovery_recovered.png'):
        assert f'images/{name}' in page and (tmp_path / 'images' / name).stat().st_size > 5000


def test_where_the_control_loses_nothing_there_is_no_evidence(tmp_path):
    data, path = made_up(), tmp_path / 'recovery.md'
    recovery_report.write_page(data, path)
    assert 'no evidence' not in path.read_text()
    for seed, (near, far) in zip(data['untrained'].values(), ((0.9, 0.85), (0.9, 0.84))):  # seeds differ by 1.4 points
        points = [dict(budget=b, share=b, top1=top1, tokens=[1]) for b, top1 in ((0.7, near), (0.5, far))]
        seed['methods']['GridPool'] = points
    recovery_report.write_page(data, path)
    assert 'Down to a budget of 0.7 the control GridPool' in path.read_text()


def test_bad_arguments_are_told(capsys):
    for words, line in (([], '--teachers must name'), (['--page-only'], '--page-only needs --page')):
        with pytest.raises(SystemExit):
            recovery.main(words)
        assert line in capsys.readouterr().err


def test_a_recovery_is_estimated_as_any_training_is():
    elastic, separate = recovery.Recovery('configs/ToMe_elastic_0', 0), recovery.Recovery('configs/ToMe_0.5_0', 0)
    assert Estimate().remaining([elastic, separate], [], 1) == 60 * (elastic.minutes + separate.minutes)
    assert Estimate([(elastic, 90.0)]).seconds(separate) == 90 * separate.minutes / elastic.minutes
