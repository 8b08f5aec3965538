"""How much is reduced: numbers, shares and budgets, and what blocks cost."""

import pytest
import torch

from mmstvit.layers.steps import METHODS, Network, build_steps, schedule
from mmstvit.layers.steps.schedule import multiply_adds, tokens_per_block
from mmstvit.measure.complexity import count
from mmstvit.models import STViT

ARCH = dict(embed_dims=24, num_layers=8, num_heads=3, feedforward_channels=60)
NETWORK = Network(8, 24, (8, 10), 1, 2.5)
DENSE = sum(multiply_adds(NETWORK, build_steps(None, NETWORK)))
REDUCING = [method for method in METHODS if method != 'STGM']
# Of each method an amount, and the tokens of 80 that leave each block.
COUNTS = {
    'ToMe': (dict(r=3), [77, 74, 71, 68, 65, 62, 59, 56]),
    'ATM': (dict(r=6, to=0), [74, 69, 65, 62, 59, 57, 56, 56]),
    'PiToMe': (dict(keep_rate=0.9), [72, 65, 59, 54, 49, 45, 41, 37]),
    'DPCKNN': (dict(keep_rate=0.5), [80, 80, 40, 40, 20, 20, 10, 10]),
    'GridPool': (dict(keep_rate=0.5), [80, 80, 42, 42, 20, 20, 12, 12]),
    'ToMeSD': (dict(r=1000), [80] * 8),
    'Expedite': (dict(keep_rate=0.5), [80, 80, 80, 42, 42, 42, 42, 42]),
    'TopK': (dict(keep_rate=0.7), [80, 80, 56, 56, 40, 40, 28, 28]),
    'EViT': (dict(keep_rate=0.7), [80, 80, 57, 57, 41, 41, 30, 30]),
    'ATS': (dict(r=20), [80, 80, 60, 60, 40, 40, 20, 20]),
    'DTEM': (dict(r=3), [77, 74, 71, 68, 65, 62, 59, 56]),
    'DynamicViT': (dict(keep_rate=0.7), [80, 80, 56, 56, 40, 40, 28, 28]),
    'LTMP': (dict(keep_rate=0.9), [72, 64, 58, 52, 46, 42, 38, 34]),
    'RepresentationShift': (dict(keep_rate=0.8), [64, 64, 52, 52, 42, 42, 42, 42]),
    'Random': (dict(keep_rate=0.5, fuse_last=True, blocks=[1]), [80, *[40] * 6, 80]),
}


def build(reduce):
    settings = dict(patch_size=4, with_cls_token=True, out_type='raw')
    return STViT(ARCH, (32, 40), reduce, **settings).eval()


@pytest.mark.parametrize('method', REDUCING)
def test_counts_are_those_of_the_network(method):
    """Tokens that leave each block, and multiply-adds of attention and MLP as they are counted on the network."""
    options, expected = COUNTS[method]
    model, seen = build(dict(type=method, **options)), []
    for step in model.encoder.steps:
        step.register_forward_hook(lambda step, args, tokens: seen.append(tokens.x.shape[1] - 1))
    cost = count(model, torch.randn(1, 3, 32, 40))
    steps = model.encoder.steps
    assert tokens_per_block(NETWORK, steps) == seen == expected
    layers = [f'encoder.layers.{i}' for i in range(8)]
    measured = [cost.modules[f'{layer}.attn'] + cost.modules[f'{layer}.mlp'] for layer in layers]
    assert multiply_adds(NETWORK, steps) == measured


@pytest.mark.parametrize('method', REDUCING)
@pytest.mark.parametrize('budget', [0.9, 0.75])
def test_budgets_are_kept_and_used(method, budget):
    steps = build_steps(dict(type=method, budget=budget), NETWORK)
    share = sum(multiply_adds(NETWORK, steps)) / DENSE
    assert budget - 0.05 < share <= budget


def test_budget_finds_the_number():
    """Of ToMe the fewest that are removed within it: one more in the first blocks where they cannot be divided."""
    budget = sum(multiply_adds(NETWORK, build_steps(dict(type='ToMe', r=4), NETWORK))) / DENSE
    counts = tokens_per_block(NETWORK, build_steps(dict(type='ToMe', budget=budget), NETWORK))
    assert counts == [80 - 4 * (i + 1) for i in range(8)]
    less = tokens_per_block(NETWORK, build_steps(dict(type='ToMe', budget=budget - 1e-6), NETWORK))
    assert less == [80 - 4 * (i + 1) - 1 for i in range(8)]


def test_numbers_are_those_of_deit():
    """Blocks of DeiT-S have 4.54 G multiply-adds with the patch embedding and the head, 0.06 G."""
    network = Network(12, 384, (14, 14), 1)
    assert sum(multiply_adds(network, build_steps(None, network))) == pytest.approx(4.54e9, rel=0.01)
    assert tokens_per_block(network, build_steps(dict(type='EViT', keep_rate=0.7), network))[2:10:3] == [196, 139, 99]


@pytest.mark.parametrize(
    'options, message',
    [
        ({}, 'give one of r, keep_rate and budget, got none of them'),
        (dict(r=2, keep_rate=0.5), 'give one of r, keep_rate and budget, got'),
        (dict(keep_rate=0.5, budget=0.5), 'give one of r, keep_rate and budget, got'),
        (dict(r=-1), 'r=-1 must be one number, or 8, not below 0'),
        (dict(r=0.5), 'r=0.5 must be one number, or 8, not below 0'),
        (dict(r='many'), "r='many' must be one number, or 8, not below 0"),
        (dict(r=[1, 2]), 'must be one number, or 8'),
        (dict(r=None), 'r=None must be one number'),
        (dict(keep_rate=0), 'keep_rate=0 must be one number, or 8, above 0 and at most 1'),
        (dict(keep_rate=1.5), 'above 0 and at most 1'),
        (dict(keep_rate=[0.5] * 9), 'must be one number, or 8'),
        (dict(keep_rate=float('nan')), 'above 0 and at most 1'),
        (dict(budget=0), 'budget=0 must be above 0 and at most 1'),
        (dict(budget=1.1), 'budget=1.1 must be above 0 and at most 1'),
        (dict(budget='half'), "budget='half' must be above 0 and at most 1"),
        (dict(budget=0.01), 'budget=0.01 cannot be kept: these blocks cost 0.'),
        (dict(unit='r', r=3), "got an unexpected keyword argument 'unit'"),
    ],
)
@pytest.mark.parametrize('method', REDUCING)
def test_wrong_amounts(method, options, message):
    with pytest.raises(ValueError) as stop:
        build_steps(dict(type=method, **options), NETWORK)
    assert message in str(stop.value) and '\n' not in str(stop.value)


@pytest.mark.parametrize('to', [-2, 1.5])
def test_the_last_number_must_be_one(to):
    with pytest.raises(ValueError, match=f'to={to} must be an integer'):
        build_steps(dict(type='ToMe', r=2, to=to), NETWORK)


@pytest.mark.parametrize('options', [dict(budget=0.5, to=3), dict(keep_rate=0.5, to=3), dict(r=[1] * 8, to=3)])
def test_linear_schedules_need_one_number(options):
    with pytest.raises(ValueError, match='to=3 goes with one number for r'):
        build_steps(dict(type='ToMe', **options), NETWORK)


@pytest.mark.parametrize('blocks', [[8], [-1], [], 3])
def test_wrong_blocks(blocks):
    with pytest.raises(ValueError, match='of the 8 blocks'):
        build_steps(dict(type='TopK', keep_rate=0.5, blocks=blocks), NETWORK)


@pytest.mark.parametrize('amount', [dict(keep_rate=[0.5] * 8), dict(r=[1] * 8)])
def test_blocks_have_no_effect_on_lists(amount):
    with pytest.raises(ValueError, match=r'blocks=\[1\] has no effect with'):
        build_steps(dict(type='TopK', blocks=[1], **amount), NETWORK)


def test_a_budget_is_found_in_few_trials(monkeypatch):
    """Each builds all steps, in training with drawn budgets in every iteration: of DeiT-S at 224 px."""
    trials, network = [], Network(12, 384, (14, 14), 1, 4.0)

    def counted(*args, _real=schedule.multiply_adds):
        trials.append(args)
        return _real(*args)

    monkeypatch.setattr(schedule, 'multiply_adds', counted)
    steps = build_steps(dict(type='ToMe', budget=0.5), network)
    assert 0.49 < schedule.multiply_add_share(network, steps) <= 0.5 and len(trials) < 20
