"""Reductions with weights of their own: what is learnt, its relaxed form beside the hard one, where weights live."""

import copy

import pytest
import torch
from test_distillation import IMAGES, OWN, THEIRS, config, losses
from vits import timm_vit

from mmstvit import get_model, reduce_
from mmstvit.functional.matching import bipartite_soft_matching
from mmstvit.functional.soft_matching import relaxed_matching
from mmstvit.layers.adapters import transformer_of
from mmstvit.layers.block import TransformerBlock
from mmstvit.layers.layout import WholeImage
from mmstvit.layers.steps import Network, build_steps
from mmstvit.layers.steps.base import Amount
from mmstvit.layers.steps.ltmp import LTMP
from mmstvit.layers.tokens import Tokens
from mmstvit.models.distillation import last_tokens
from mmstvit.models.reduction import reduction_of, restore_
from mmstvit.registry import MODELS

pytest.importorskip('mmpretrain')

# Of each method options, what learn= calls its weights, and their name in a step.
LEARNED = {
    'DTEM': (dict(r=3), 'embedding', 'embedding'),
    'DynamicViT': (dict(keep_rate=0.6), 'predictors', 'predictor'),
    'LTMP': (dict(keep_rate=0.8), 'thresholds', 'thresholds'),
}
BLOCKS = {'DTEM': {0, 1, 2, 3}, 'DynamicViT': {1, 2, 3}, 'LTMP': {0, 1, 2, 3}}
CLASS_TOKEN = dict(OWN, with_cls_token=True, out_type='cls_token')
BACKBONES = dict(mmstvit=CLASS_TOKEN, mmpretrain=THEIRS)

every_method = pytest.mark.parametrize('method', LEARNED)


@pytest.fixture(scope='module')
def dense(tmp_path_factory):
    """Checkpoints of the plain networks."""
    paths = {}
    for name, backbone in BACKBONES.items():
        torch.manual_seed(0)
        model = get_model(config(backbone))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else None
        paths[name] = str(tmp_path_factory.mktemp('dense') / f'{name}.pth')
        torch.save(dict(state_dict=model.state_dict(), meta={}), paths[name])
    return paths


def student(dense, method, library='mmstvit', reduce=None, **options):
    torch.manual_seed(0)
    reduce = dict(type=method, **LEARNED[method][0], **(reduce or {}))
    if method != 'DTEM':
        options = dict(dict(cost_weight=2.0), **options)
    model = get_model(config(BACKBONES[library], reduce, **dict(dict(teacher_ckpt=dense[library]), **options)))
    missing, unexpected = model.load_state_dict(torch.load(dense[library])['state_dict'], strict=False)
    assert missing and not unexpected
    return model


def step_names(model, method):
    return {name for name in model.state_dict() if f'.{LEARNED[method][2]}.' in name}


@every_method
@pytest.mark.parametrize('library', BACKBONES)
def test_weights_are_part_of_the_network(dense, method, library):
    """Under clear names, in a checkpoint that a config for testing asks for wholly; gone after restore_."""
    model = student(dense, method, library)
    names = step_names(model, method)
    home = dict(mmstvit='backbone.encoder.steps.', mmpretrain='backbone.reduction_steps.')[library]
    assert all(name.startswith(home) for name in names)
    assert {int(name[len(home)]) for name in names} == BLOCKS[method]
    testing = config(BACKBONES[library], dict(type=method, **LEARNED[method][0]))
    testing.model.type = 'ImageClassifier'
    tested = get_model(testing)
    tested.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(tested(IMAGES, mode='tensor'), model.eval()(IMAGES, mode='tensor'))
    incomplete = {name: value for name, value in model.state_dict().items() if name not in names}
    with pytest.raises(RuntimeError, match='Missing key'):
        tested.load_state_dict(incomplete)
    assert set(restore_(tested.backbone).state_dict()) == {
        name.partition('.')[2] for name in incomplete if 'back' in name
    }


@every_method
def test_network_of_another_library_is_ours(dense, method):
    """With the same weights, in training too, where both draw the same."""
    ours, theirs = student(dense, method), student(dense, method, 'mmpretrain')
    own, other = ours.backbone, theirs.backbone
    for a, b in zip(own.encoder.layers, other.layers, strict=True):
        a.load_state_dict(dict(zip(a.state_dict(), b.state_dict().values(), strict=True)))
    for number, part in other.reduction_steps.items():
        for name, module in part.items():
            getattr(own.encoder.steps[int(number)], name).load_state_dict(module.state_dict())
    tokens = torch.randn(2, 17, 16, generator=torch.Generator().manual_seed(1))
    for training in (False, True):
        outs = []
        for model, run in ((own, own.encoder), (other, None)):
            model.train(training)
            torch.manual_seed(0)
            x = tokens
            if run is None:
                for block in other.layers:
                    x = block(x)
            else:
                x = run(tokens, WholeImage((4, 4), tokens.device, 1))[0].x
            outs.append(x[:, 0])
        assert torch.allclose(*outs, atol=1e-5)


@every_method
def test_what_pools_hidden_tokens_is_refused(method):
    """Networks of others that pool their patches do not know which are hidden; ours pools by sizes."""
    reduce, theirs = dict(type=method, **LEARNED[method][0]), {**THEIRS, 'type': 'mmpretrain.VisionTransformer'}
    for pooled in (False, True):
        backbone = MODELS.build({**theirs, 'out_type': 'avg_featmap' if pooled else 'cls_token'})
        for model in (timm_vit(global_pool='avg' if pooled else 'token'), backbone):
            transformer = transformer_of(model)
            steps = build_steps(reduce, transformer.network)
            if pooled and method != 'DTEM':  # which hides none
                with pytest.raises(ValueError, match=f"{method} hides tokens at their places.*class token's features"):
                    transformer.check(steps)
            else:
                transformer.check(steps)


@every_method
@pytest.mark.parametrize('library', BACKBONES)
def test_only_what_learn_says_is_learnt(dense, method, library):
    model = student(dense, method, library, learn=LEARNED[method][1], token_weight=1.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    sum(value for name, value in losses(model).items() if 'loss' in name).backward()
    learnt = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    buffers = {name for name, _ in model.named_buffers() if '.thresholds.removed' in name}  # a mean, as of batch norm
    assert learnt == step_names(model, method) & {name for name, _ in model.named_parameters()}
    assert all(parameter.grad.any() for parameter in model.parameters() if parameter.requires_grad)
    optimizer.step()
    assert {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    } == learnt | buffers


# ------------------------------------------------------------------------------------------------------------ DTEM
@pytest.mark.parametrize('num_prefix', [0, 1, 2])
@pytest.mark.parametrize('total, r', [(17, 1), (17, 4), (12, 5), (12, 6), (16, 0)])
def test_relaxed_matching(num_prefix, total, r):
    """The matching itself where it is cold; warm, shares of the equations, which add up."""
    r = min(r, (total - num_prefix) // 2)
    metric = torch.randn(2, total, 5, generator=torch.Generator().manual_seed(total))
    hard = bipartite_soft_matching(metric, r, num_prefix)
    eye = torch.eye(total - r).expand(2, -1, -1)
    assert torch.allclose(relaxed_matching(metric, r, num_prefix, 1e-6).unmerge(eye), hard.unmerge(eye))
    x = torch.randn(2, total, 3)
    soft = relaxed_matching(metric, r, num_prefix, 0.2)
    share = soft.unmerge(eye)
    assert torch.allclose(soft.merge(x), share.transpose(1, 2) @ x, atol=1e-6)
    assert torch.allclose(share.sum(dim=-1), torch.ones(2, total))
    if r == 0:
        return
    unit = metric / metric.norm(dim=-1, keepdim=True)
    for b in range(2):
        even = [i for i in range(num_prefix, total) if i % 2 == 0]
        odd = [i for i in range(num_prefix, total) if i % 2 == 1]
        similar = {i: [float(unit[b, i] @ unit[b, j]) for j in odd] for i in even}
        order = sorted(even, key=lambda i: -max(similar[i]))
        after = [*range(num_prefix), *sorted(order[r:]), *odd]
        for i in even:
            weights = (torch.tensor(similar[i]) / 0.2).softmax(0)
            part = 1.0
            if i in order[r:]:
                middle = (max(similar[order[r - 1]]) + max(similar[order[r]])) / 2
                part = float(torch.tensor((max(similar[i]) - middle) / 0.2).sigmoid())
                assert share[b, i, after.index(i)] == pytest.approx(1 - part, abs=1e-5)
            assert torch.allclose(share[b, i, -len(odd) :], part * weights, atol=1e-5)


def test_cold_training_of_dtem_is_its_test(dense):
    for temperature, equal in ((1e-5, True), (0.1, False)):
        model = student(dense, 'DTEM', reduce=dict(temperature=temperature))
        with torch.no_grad():
            soft, hard = (model.train(mode)(IMAGES, mode='tensor') for mode in (True, False))
        assert torch.allclose(soft, hard, atol=1e-4) == equal


def test_budgets_of_dtem_are_drawn_with_the_same_weights(dense):
    """Those of all blocks, whatever a budget leaves of them to do."""
    model = student(dense, 'DTEM', budget=(0.5, 1.0))
    parameters, names = {id(p) for p in model.parameters()}, set(model.state_dict())
    state = torch.random.get_rng_state()
    for budget in (0.6, 1.0, 0.5):
        reduction_of(model).budget = budget
        assert {id(p) for p in model.parameters()} == parameters and set(model.state_dict()) == names
    assert torch.equal(torch.random.get_rng_state(), state)
    found = losses(model)
    sum(found.values()).backward()
    with pytest.raises(ValueError, match=r'weights for the blocks \[0, 1, 2, 3\]'):
        reduction_of(model).dims = 8
    assert 'dims' not in reduction_of(model).options


# ------------------------------------------------------------------------------------------------------ DynamicViT
class Clear(torch.nn.Module):
    """In the place of a predictor: the tokens of the highest first channel, so surely that no chance is left."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def forward(self, x, size):
        score = x[..., 0] if size is None else x[..., 0].masked_fill(size[..., 0] < 0.5, -1e3)
        surely = torch.where(score >= score.topk(self.kept, dim=1).values[:, -1:], 1e4, -1e4)
        return torch.stack((surely + score, torch.zeros_like(score)), dim=-1)


def reducing(model):
    return [step for step in model.backbone.encoder.steps if hasattr(step, 'predictor')]


@pytest.mark.parametrize('pooled', [False, True])
def test_hidden_tokens_are_as_if_dropped(dense, pooled, monkeypatch):
    monkeypatch.setattr('mmstvit.layers.steps.hiding.FLOOR', 1e-6)
    model = student(dense, 'DynamicViT')
    model.backbone.out_type = 'avg_featmap' if pooled else 'cls_token'
    for step, kept in zip(reducing(model), (10, 6, 4), strict=True):
        step.predictor = Clear(kept)
    with torch.no_grad(), last_tokens(model) as outputs:
        hidden, dropped = (model.train(mode).extract_feat(IMAGES / 255)[0] for mode in (True, False))
    assert torch.allclose(hidden, dropped, atol=1e-4)
    soft, hard = outputs
    assert [there[0].sum() for there in soft.kept] == [10, 6, 4]
    ones = [tokens._replace(x=torch.ones_like(tokens.x)).unmerge() for tokens in outputs]
    assert torch.equal(*ones) and ones[0].sum() == len(IMAGES) * 5 * 16  # the class token and four patches


def test_prediction_is_that_of_the_equations():
    """The mean is of the tokens that are there, and all gradients arrive through the drawn ones."""
    (*_, step) = build_steps(dict(type='DynamicViT', keep_rate=0.5), Network(4, 8, (2, 3), 0))
    x, size = torch.randn(2, 6, 8), torch.tensor([1, 0, 1, 1, 0, 1.0]).expand(2, 6)[..., None]
    gelu, predictor = torch.nn.functional.gelu, step.predictor
    y = gelu(predictor.fc1(predictor.norm(x)))
    mean = y[:, [0, 2, 3, 5], 4:].mean(dim=1)
    z = torch.stack([torch.cat((y[:, i, :4], mean), dim=-1) for i in range(6)], dim=1)
    expected = predictor.fc4(gelu(predictor.fc3(gelu(predictor.fc2(z)))))
    assert torch.allclose(predictor(x, size), expected, atol=1e-6)
    assert not torch.allclose(predictor(x, None), expected, atol=1e-3)


def test_error_of_the_amount(dense):
    """2 sum_l mean_b (kept_bl / 16 - planned_l / 16)^2, planned 10, 6 and 4."""
    model = student(dense, 'DynamicViT', token_weight=1.0)
    assert reduction_of(model).tokens == [16, 10, 6, 4]
    torch.manual_seed(3)
    found = losses(model)
    assert set(found) == {'loss_cls', 'loss_logits', 'loss_tokens', 'loss_cost'}
    torch.manual_seed(3)
    data = model.data_preprocessor(dict(inputs=IMAGES), False)
    with last_tokens(model) as outputs:
        model.extract_feat(data['inputs'])
    expected = 0.0
    for there, planned in zip(outputs[0].kept, (10, 6, 4), strict=True):
        expected += 2 * sum((row.sum().item() / 16 - planned / 16) ** 2 for row in there) / len(there)
    assert found['loss_cost'].item() == pytest.approx(expected, rel=1e-4) and expected > 1e-3
    found['loss_cost'].backward()
    assert all(p.grad.any() for step in reducing(model) for p in step.predictor.parameters())
    alone = losses(student(dense, 'DynamicViT', logit_weight=0, teacher_ckpt=None))
    assert set(alone) == {'loss_cls', 'loss_cost'}


def test_resumed_training_goes_on(dense):
    """From a checkpoint of model and optimizer: the numbers of the training left alone."""

    def steps(model, optimizer, numbers):
        for number in numbers:
            torch.manual_seed(number)
            optimizer.zero_grad()
            sum(value for name, value in losses(model).items() if 'loss' in name).backward()
            optimizer.step()

    def begin(method):
        model = student(dense, method, 'mmpretrain', learn=LEARNED[method][1])
        return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)

    for method in LEARNED:
        model, optimizer = begin(method)
        steps(model, optimizer, [0])
        kept = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        other, resumed = begin(method)
        other.load_state_dict(kept[0])
        resumed.load_state_dict(kept[1])
        steps(model, optimizer, [1])
        steps(other, resumed, [1])
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
        assert any(not torch.equal(value, kept[0][name]) for name, value in model.state_dict().items())


# ------------------------------------------------------------------------------------------------------------ LTMP
def test_thresholds_in_training_are_the_numbers_of_the_test():
    """A step that hides what is over its thresholds, and one that removes as many, of the equations."""
    torch.manual_seed(0)
    block, step = TransformerBlock(12, 3, 24), LTMP(Amount(keep_rate=0.5), 0.1)
    size = torch.randint(1, 3, (1, 25, 1)).float()
    tokens = Tokens(torch.randn(1, 25, 12), WholeImage((4, 6), torch.device('cpu'), 1), size=size)
    step.thresholds.merge.data.fill_(0.6)
    step.thresholds.prune.data.fill_(0.9)
    counted = []
    step.thresholds.count = lambda *masks: counted.extend(int(mask.sum()) for mask in masks)
    soft = step.train()(block, tokens)
    before, merged, after = counted
    assert before == 24 > merged > after > 0 and after == soft.kept[0].sum()
    step.eval().thresholds.shares = (1 - merged / 24, 1 - after / merged)
    hard = step(block, tokens)
    there = torch.cat((torch.zeros(1), soft.kept[0][0])) > 0.5
    places = [0, *(i for i in range(2, 25, 2) if there[i]), *(i for i in range(1, 25, 2) if there[i])]
    assert torch.allclose(hard.x, soft.x[:, places], atol=1e-5) and torch.equal(hard.size, soft.size[:, places])
    ones = [t._replace(x=torch.ones_like(t.x)).unmerge() for t in (hard, soft)]
    assert torch.equal(*ones) and not ones[0].all()  # the same patches are lost

    q, k, _ = block.attn.qkv(block.norm1(tokens.x)).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-1, -2) / 2 + size.log()[..., 0]
    score, unit = logits.softmax(-1).mean(dim=(0, 1)).sum(dim=0), k.mean(dim=1)[0]
    unit = unit / unit.norm(dim=-1, keepdim=True)
    members = {i: [i] for i in range(1, 25)}
    for i in range(2, 25, 2):
        similar = {j: float(unit[i] @ unit[j]) for j in range(1, 25, 2)}
        match = max(similar, key=similar.get)
        if similar[match] > 0.6:
            members[match] += members.pop(i)
    mean = {j: sum(size[0, i, 0] * score[i] for i in m) / sum(size[0, i, 0] for i in m) for j, m in members.items()}
    assert sorted(places[1:]) == sorted(j for j, value in mean.items() if value > 0.9)


def test_cost_is_that_of_the_tokens(dense):
    """(cost - target)^2: 4 n C^2 + 2 n^2 C + 4 m C^2 of each block over the same with all 17 tokens, the mean."""
    model = student(dense, 'LTMP', reduce=dict(temperature=0.2))
    for step in model.backbone.encoder.steps:
        step.thresholds.merge.data.fill_(0.7)
    found = losses(model)
    data = model.data_preprocessor(dict(inputs=IMAGES), False)
    with last_tokens(model) as outputs:
        model.extract_feat(data['inputs'])
    cost = []
    for b in range(len(IMAGES)):
        counts = [16, *(int(there[b].sum()) for there in outputs[0].kept)]
        both = [(1 + n, 1 + m) for n, m in zip(counts, counts[1:], strict=False)]
        cost.append(sum(4 * n * 16**2 + 2 * n**2 * 16 + 4 * m * 16**2 for n, m in both))
    dense_cost = 4 * (4 * 17 * 16**2 + 2 * 17**2 * 16 + 4 * 17 * 16**2)
    pairs = ((16, 13), (13, 11), (11, 9), (9, 8))  # planned
    target = sum(4 * (1 + n) * 16**2 + 2 * (1 + n) ** 2 * 16 + 4 * (1 + m) * 16**2 for n, m in pairs)
    expected = 2 * (sum(cost) / len(cost) / dense_cost - target / dense_cost) ** 2
    assert found['loss_cost'].item() == pytest.approx(expected, rel=1e-3) and expected > 1e-4
    found['loss_cost'].backward()
    too_dear = 1 if sum(cost) / len(cost) > target else -1
    for step in model.backbone.encoder.steps:
        assert too_dear * step.thresholds.merge.grad > 0 > too_dear * step.thresholds.prune.grad


def test_amounts_that_were_learnt_are_those_of_the_test(dense):
    model = student(dense, 'LTMP')
    thresholds = model.backbone.encoder.steps[0].thresholds
    before = thresholds.removed.clone()
    masks = [torch.tensor([[1.0] * 16]), torch.tensor([[1.0] * 8 + [0.0] * 8]), torch.tensor([[1.0] * 6 + [0.0] * 10])]
    for _ in range(300):
        thresholds.count(*masks)
    assert torch.allclose(thresholds.removed, torch.tensor([0.5, 0.25]), atol=0.01)
    assert not torch.allclose(before, thresholds.removed, atol=0.1)
    planned = reduction_of(model).share
    model.eval()
    assert reduction_of(model).tokens[0] == 6 and reduction_of(model).share < planned
    other = student(dense, 'LTMP')
    other.load_state_dict(model.state_dict())
    assert reduction_of(other).tokens == reduction_of(model).tokens
    wrong = get_model(config(CLASS_TOKEN, dict(type='LTMP', keep_rate=0.7), teacher_ckpt='x.pth', cost_weight=1.0))
    with pytest.raises(RuntimeError, match=r'steps.0.thresholds were learnt to keep 0.800 of the tokens, and the opt'):
        wrong.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match='LTMP has weights for the blocks'):
        reduction_of(model).keep_rate = 0.7


# --------------------------------------------------------------------------------------------------------- refusals
@every_method
def test_reduce_says_that_it_needs_training(method):
    model = get_model(config(CLASS_TOKEN))
    with pytest.raises(ValueError, match=f'{method} has weights of its own') as error:
        reduce_(model, method.lower(), **LEARNED[method][0])
    assert '\n' not in str(error.value) and not hasattr(model, 'reduction')


@pytest.mark.parametrize(
    'method, options, line',
    [
        (
            'ToMe',
            dict(learn='embedding'),
            r"learn='embedding': the model has no embedding of reduce=dict\(type=\"DTEM\"\)",
        ),
        ('DTEM', dict(learn='predictors'), "learn='predictors': the model has no predictors of reduce=dict"),
        ('DynamicViT', dict(cost_weight=0.0), 'cost_weight=0.0 must be above 0: the method learns how many'),
        ('DTEM', dict(cost_weight=1.0), 'cost_weight=1.0 has no effect: no method'),
        ('DynamicViT', dict(cost_weight=-1.0), 'cost_weight=-1.0 must be at least 0'),
        ('DynamicViT', dict(budget=(0.5, 1.0)), 'DynamicViT learns one amount, that of its options: leave it out'),
        ('LTMP', dict(learn='predictors'), "learn='predictors': the model has no predictors"),
        ('LTMP', dict(reduce=dict(temperature=0)), 'temperature=0 must be above 0'),
        ('LTMP', dict(budget=(0.5, 1.0)), 'LTMP learns one amount'),
        ('DTEM', dict(reduce=dict(dims=0)), 'dims=0 and temperature=0.1 must be above 0'),
    ],
)
def test_refused_in_a_line(method, options, line):
    options = dict(options)
    reduce = dict(type=method, **LEARNED.get(method, (dict(r=2),))[0], **options.pop('reduce', {}))
    weight = {} if 'cost_weight' in options or method in ('ToMe', 'DTEM') else dict(cost_weight=2.0)
    with pytest.raises(ValueError, match=line) as error:
        get_model(config(CLASS_TOKEN, reduce, teacher_ckpt='dense.pth', **weight, **options))
    assert '\n' not in str(error.value)


@every_method
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_training_in_other_types(method, dtype):
    """A model that is cast, without autocast."""
    torch.manual_seed(0)
    options = LEARNED[method][0]
    model = MODELS.build(dict(type='mmstvit.Reduced', backbone=CLASS_TOKEN, reduce=dict(type=method, **options)))
    model.train().to(dtype)(IMAGES.to(dtype) / 255)[-1].square().sum().backward()
    learnt = {name: p.grad for name, p in model.named_parameters() if LEARNED[method][2] in name and '.3.' not in name}
    assert learnt and all(grad.dtype == dtype and grad.isfinite().all() for grad in learnt.values())
