"""Distillation of a network with fewer tokens: its losses, its budgets, what it learns, and what it is made of."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from run_helpers import DENSE

from mmstvit import get_model, reduce_
from mmstvit.cli import train as train_cli
from mmstvit.engine.activation_checkpointing import ActivationCheckpointingHook
from mmstvit.errors import UsageError
from mmstvit.functional.reduction import reduction_to, selection_of
from mmstvit.layers.tokens import Tokens
from mmstvit.models.distillation import drawn_budget, last_tokens, logit_divergence, token_error
from mmstvit.models.reduction import reduction_of

pytest.importorskip('mmpretrain')

ARCH = dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32)
OWN = dict(type='mmstvit.STViT', arch=ARCH, img_size=32, patch_size=8, reduce=None)
THEIRS = dict(type='VisionTransformer', arch=ARCH, img_size=32, patch_size=8)
HEAD = dict(type='VisionTransformerClsHead', num_classes=3, in_channels=16)
IMAGES = torch.randint(0, 255, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()


def config(backbone=OWN, reduce=None, **model):
    kind = 'mmstvit.DistilledClassifier' if reduce or model else 'ImageClassifier'
    backbone = dict(type='mmstvit.Reduced', backbone=backbone, reduce=reduce) if reduce else backbone
    model = dict(type=kind, backbone=backbone, head=HEAD, **model)
    scaling = dict(num_classes=3, mean=[127.5] * 3, std=[127.5] * 3)
    return Config(copy.deepcopy(dict(default_scope='mmpretrain', model=model, data_preprocessor=scaling)))


TOME = dict(type='ToMe', budget=0.5)


@pytest.fixture(scope='module', params=[OWN, THEIRS], ids=['mmstvit', 'mmpretrain'])
def dense(request, tmp_path_factory):
    """A backbone's config and a checkpoint of it."""
    torch.manual_seed(0)
    model = get_model(config(request.param))
    for parameter in model.parameters():  # heads begin with zeros
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else None
    path = tmp_path_factory.mktemp('dense') / 'dense.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return request.param, str(path)


@pytest.fixture
def iteration():
    """Sets the iteration that a runner would be at."""
    hub = MessageHub.get_current_instance()
    yield lambda number: hub.update_info('iter', number)
    hub.update_info('iter', 0)


def student(dense, reduce=TOME, **options):
    backbone, path = dense
    distilled = options.get('logit_weight', 1) or options.get('token_weight', 0)
    model = get_model(config(backbone, reduce, **(dict(teacher_ckpt=path) if distilled else {}), **options))
    model.load_state_dict(torch.load(path)['state_dict'])
    return model


def losses(model, training=True, scores=None):
    from mmpretrain.structures import DataSample

    samples = [DataSample().set_gt_label(i % 3) for i in range(len(IMAGES))]
    for sample, score in zip(samples, scores if scores is not None else []):
        sample.set_gt_score(score)
    data = model.data_preprocessor(dict(inputs=IMAGES, data_samples=samples), training)
    return model.train()(**data, mode='loss')


def test_the_teacher_goes_where_the_model_goes(dense):
    """A strategy moves the model after its weights are made."""
    model = student(dense)
    model.init_weights()
    model.to('meta')
    assert {parameter.device.type for parameter in model.teacher().parameters()} == {'meta'}


def test_recomputed_activations_of_a_reduced_network(dense):
    """Each block runs twice and gradients are the same; drawn budgets, which would undo that, are refused."""
    model, runs = student(dense, logit_weight=0), []
    name = 'backbone.encoder.layers.1' if dense[0] is OWN else 'backbone.layers.1'

    def gradients():
        runs.clear()
        model.zero_grad()
        model(IMAGES, mode='tensor').square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    model.train().get_submodule(f'{name}.attn').qkv.register_forward_hook(lambda *args: runs.append(1))
    expected = gradients()
    assert len(runs) == 1
    ActivationCheckpointingHook(name).before_train(SimpleNamespace(model=model))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradients(), expected, strict=True))
    assert len(runs) == 2
    if dense[0] is THEIRS:
        drawn = SimpleNamespace(model=student(dense, budget=(0.4, 1.0)))
        with pytest.raises(ValueError, match=f'activation_checkpointing of {name} does not go with budgets'):
            ActivationCheckpointingHook(name).before_train(drawn)


def test_gradients_of_each_loss(dense):
    """Of the divergence p_s - p_t, of the error of tokens 2 (x - y) / C behind the norm; nothing where all agree."""
    logits = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)
    other = torch.tensor([[0.0, 2.0, 1.0]])
    logit_divergence(logits, other, temperature=2.0).backward()
    expected = 2.0 * ((logits / 2).softmax(-1) - (other / 2).softmax(-1))
    assert torch.allclose(logits.grad, expected, atol=1e-6)

    model = student(dense, token_weight=0.5)
    found = losses(model)
    assert set(found) == {'loss_cls', 'loss_logits', 'loss_tokens'}
    for name in found:
        model.zero_grad()
        found[name].backward(retain_graph=True)
        grads = [p.grad for p in model.backbone.parameters() if p.grad is not None]
        assert sum(grad.abs().sum() for grad in grads) > 0, name
    same = student(dense, dict(type='ToMe', r=0), token_weight=0.5)
    same.eval()  # no layer is random; the loss is asked for as it is in training
    found = {name: float(value.detach()) for name, value in losses(same).items()}
    assert found['loss_logits'] == pytest.approx(0, abs=1e-6) and found['loss_tokens'] == pytest.approx(0, abs=1e-6)


def test_error_of_tokens_is_that_of_their_patches():
    teacher = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))
    merged = reduction_to(torch.tensor([[0, 1, 1, 0]]), 2)
    tokens = Tokens(teacher[:, :2], None, trace=(merged,))
    norm = torch.nn.functional.layer_norm(teacher, (8,))
    expected = (norm[:, [0, 1, 1, 0]] - norm).square().mean()
    assert torch.allclose(token_error(tokens, teacher), expected)
    assert torch.allclose(token_error(tokens._replace(x=3 * tokens.x), teacher), expected, atol=1e-3)  # but for its eps
    dropped = Tokens(teacher[:, 1:3], None, trace=(selection_of(torch.tensor([[1, 2]]), 4),))
    assert token_error(dropped, teacher) == 0  # those that are there are equal; the others have no error
    with pytest.raises(ValueError, match='set token_weight=0'):
        token_error(tokens, teacher[:, :3])


def test_last_tokens_of_any_step(dense):
    """By a step, by the block where nothing is reduced, and none after it is closed."""
    model = get_model(config(dense[0]))
    with last_tokens(model) as outputs:
        model(IMAGES, mode='tensor')
    plain = outputs[0].x if isinstance(outputs[0], Tokens) else outputs[0]
    reduce_(model.backbone, 'tome', r=2)
    with last_tokens(model) as reduced:
        model(IMAGES, mode='tensor')
    model(IMAGES, mode='tensor')
    assert len(outputs) == len(reduced) == 1
    assert plain.shape[1] - reduced[0].x.shape[1] == 8 and len(reduced[0].trace) == 4


def test_nothing_reduced_and_no_teacher_is_plain_training(dense):
    model = student(dense, dict(type='ToMe', r=0), logit_weight=0)
    plain = get_model(config(dense[0]))
    plain.load_state_dict(model.state_dict())
    found, expected = losses(model), losses(plain)
    assert list(found) == list(expected) == ['loss'] and torch.equal(found['loss'], expected['loss'])


def test_mixed_labels(dense):
    """Scores of mixed images reach the head's loss, and the teacher sees the mixed images."""
    scores = torch.tensor([[0.3, 0.7, 0.0]] * len(IMAGES))
    model, plain = student(dense), get_model(config(dense[0], TOME, logit_weight=0.0))
    plain.load_state_dict(model.state_dict())
    assert torch.equal(losses(model, scores=scores)['loss_cls'], losses(plain, scores=scores)['loss'])
    mixed = config(dense[0], TOME, teacher_ckpt=dense[1], train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]))
    found = losses(get_model(mixed))
    assert all(value.isfinite() for value in found.values())


def test_teacher_is_no_part_of_the_model(dense):
    model = student(dense, token_weight=0.5)
    names = list(model.state_dict())
    losses(model)
    teacher = model.teacher()
    assert list(model.state_dict()) == names == list(get_model(config(dense[0])).state_dict())
    assert not any(m is teacher for m in model.modules())
    model.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters()) and reduction_of(teacher) is None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    stored = torch.load(dense[1])['state_dict']
    assert all(torch.equal(value, stored[name]) for name, value in teacher.state_dict().items())


def test_teacher_of_another_config(dense, tmp_path):
    """An STViT from a dense ViT: its layers are those of the ViT whose place they take."""
    if dense[0] is not OWN:
        pytest.skip('the dense network of an STViT')
    config(dense[0]).dump(tmp_path / 'dense.py')
    semantic = dict(OWN, reduce=dict(type='STGM', grid=(2, 2), layer=1))

    def taught_by(teacher):
        torch.manual_seed(0)
        model = get_model(config(semantic, teacher_ckpt=dense[1], teacher_config=teacher, token_weight=1.0))
        model.load_state_dict(torch.load(dense[1])['state_dict'], strict=False)
        return model

    model = taught_by(str(tmp_path / 'dense.py'))
    found = losses(model)
    assert found['loss_tokens'] > 0
    assert torch.equal(losses(taught_by(dict(config(dense[0]).model)))['loss_tokens'], found['loss_tokens'])
    sum(found.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.backbone.parameters())
    other = config(dense[0])
    other.data_preprocessor.mean = [0.0] * 3
    other.dump(tmp_path / 'other.py')
    with pytest.raises(UsageError, match="the teacher's data_preprocessor has mean="):
        losses(taught_by(str(tmp_path / 'other.py')))


def test_budgets_are_drawn_from_the_iteration(dense, iteration):
    """The same after a resume, other ones in other iterations, within bounds, and gone in evaluation."""
    drawn = [drawn_budget((0.35, 1.0), 0, i) for i in range(200)]
    assert 0.35 <= min(drawn) < 0.4 and 0.95 < max(drawn) <= 1 and len(set(drawn)) == 200
    assert drawn_budget((0.35, 1.0), 1, 0) != drawn[0]
    model = student(dense, budget=(0.4, 1.0))
    seen = []
    for number in (5, 6, 5):
        iteration(number)
        seen.append(float(losses(model)['budget']))
        assert reduction_of(model).budget == pytest.approx(seen[-1])
    assert seen[0] == seen[2] != seen[1]
    model.eval()
    assert reduction_of(model).options == dict(budget=0.5)
    reduction_of(model).budget = 0.7  # chosen by hand: it stays
    model.eval()
    assert reduction_of(model).budget == 0.7


def test_elastic_checkpoint_in_the_plain_network(dense):
    """It loads into the dense network, which is then reduced to any budget, and gives the same."""
    model = student(dense, budget=(0.4, 1.0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    plain = get_model(config(dense[0]))
    plain.load_state_dict(model.state_dict())
    reduce_(plain.backbone, 'tome', budget=1.0)
    model.eval()
    seen = []
    for budget in (1.0, 0.7, 0.4):
        reduction_of(model).budget = plain.backbone.reduction.budget = budget
        with torch.no_grad():
            seen.append(model(IMAGES, mode='tensor'))
            assert torch.equal(seen[-1], plain(IMAGES, mode='tensor'))
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


def test_norms_alone_are_learnt(dense):
    model = student(dense, learn='norms')
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    sum(losses(model).values()).backward()
    optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    norms = {name for name in before if 'norm' in name or '.ln' in name}
    assert norms and changed == norms


@pytest.mark.parametrize(
    'options, line',
    [
        (
            dict(learn='everything'),
            r"learn='everything' is unknown, choose from \('all', 'norms', 'embedding', 'predictors', 'thresholds'",
        ),
        (dict(budget=0.5), r'budget=0.5 must be \(least, most\), above 0 and at most 1'),
        (dict(budget=(0.7, 0.4)), r'budget=\(0.7, 0.4\) must be'),
        (dict(budget=(0.01, 1.0)), 'budget=0.01 cannot be kept'),
        (dict(budget=(0.5, 1.0), reduce=None), r'budget=\(0.5, 1.0\) needs backbone=dict\(type="mmstvit.Reduced"'),
        (dict(temperature=0), 'temperature=0 must be above 0'),
        (dict(logit_weight=-1), 'logit_weight=-1 must be at least 0'),
        (dict(teacher_ckpt=None), 'teacher_ckpt must name the checkpoint of the dense network'),
        (dict(logit_weight=0), "teacher_ckpt='dense.pth' has no effect with logit_weight=0 and token_weight=0"),
        (dict(logit_weight=0, token_weight=1, temperature=4), 'temperature=4 has no effect with logit_weight=0'),
        (dict(reduce=None), 'teacher_config must name the dense network: this one cannot do without'),
    ],
)
def test_refused_in_a_line(options, line):
    given = {'reduce': TOME, 'teacher_ckpt': 'dense.pth', **options}
    with pytest.raises(ValueError, match=line) as error:
        get_model(config(OWN, **given))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'kind, line',
    [('mmstvit.STViTSwin', 'this one has stages: set token_weight=0'), ('SwinTransformer', 'cannot be reduced')],
)
def test_what_needs_a_plain_transformer(kind, line):
    sizes = dict(semantic_size=None) if 'mmstvit' in kind else dict(img_size=64)
    swin = dict(type=kind, arch=dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1)), **sizes)
    given = dict(teacher_ckpt='dense.pth', teacher_config='dense.py')
    with pytest.raises(ValueError, match=line):
        get_model(config(swin, token_weight=1.0, **given))


def test_teacher_is_read_when_training_starts(dense, tmp_path):
    """Not for a test; what is wrong with it is one line."""
    model = get_model(config(dense[0], TOME, teacher_ckpt=str(tmp_path / 'none.pth')))
    with torch.no_grad():
        assert model(IMAGES, mode='tensor').shape == (4, 3)
    with pytest.raises(FileNotFoundError, match='there is no checkpoint') as error:
        model.init_weights()
    assert '\n' not in str(error.value)
    student(dense).init_weights()


RECOVERY = """
_base_ = ['{dense}']
model = dict(
    type='mmstvit.DistilledClassifier',
    backbone=dict(
        _delete_=True, type='mmstvit.Reduced', backbone={{_base_.model.backbone}}, reduce=dict(type='ToMe', r=2)),
    teacher_ckpt='{folder}/dense.pth', budget=(0.4, 1.0), token_weight=1.0)
load_from = '{folder}/dense.pth'
train_dataloader = dict(dataset=dict(indices=20))
train_cfg = dict(max_epochs=2, val_interval=3)
"""


def test_resumed_training_draws_the_same_budgets(tmp_path):
    """By the commands: the weights after a resume are those of the training left alone, and load into the ViT."""
    (tmp_path / 'dense.py').write_text(DENSE)
    (tmp_path / 'recovery.py').write_text(RECOVERY.replace('{dense}', './dense.py').replace('{folder}', str(tmp_path)))
    plain = get_model(str(tmp_path / 'dense.py'))
    torch.save(dict(state_dict=plain.state_dict(), meta={}), tmp_path / 'dense.pth')
    config = str(tmp_path / 'recovery.py')
    train_cli.main(
        [config, '--work-dir', str(tmp_path / 'whole'), '--cfg-options', 'default_hooks.checkpoint.interval=1']
    )
    train_cli.main([config, '--work-dir', str(tmp_path / 'rest'), '--resume', str(tmp_path / 'whole' / 'epoch_1.pth')])
    whole, rest = (
        torch.load(tmp_path / name / 'epoch_2.pth', weights_only=False)['state_dict'] for name in ('whole', 'rest')
    )
    assert whole.keys() == rest.keys() == plain.state_dict().keys()
    assert all(torch.equal(value, rest[name]) for name, value in whole.items())
    plain.load_state_dict(whole)
