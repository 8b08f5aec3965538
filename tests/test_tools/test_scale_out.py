"""Several processes, strategies, accumulation, recomputation and compilation train as one plain process does."""

import json
import re

import pytest
import torch
from loss_recorder import read_losses
from run_helpers import read_scalars, run_ranks
from torch import nn

from mmstvit.cli import test as test_cli
from mmstvit.cli import train as train_cli
from mmstvit.layers.block import Mlp

# Nothing by chance, and an order in which the batches of two processes are the halves of one process's batch; the
# limit on the gradients is one that they pass. With the usual eps AdamW makes steps of rounding errors.
STEADY = """
_base_ = ['{tiny}']
custom_imports = dict(imports=['loss_recorder'], allow_failed_imports=False)
train_dataloader = dict(
    batch_size=20,
    sampler=dict(shuffle=False),
    dataset=dict(
        indices=120, pipeline=[dict(type='Resize', scale=32, interpolation='bicubic'), dict(type='PackInputs')]))
val_dataloader = dict(batch_size=20, dataset=dict(indices=51))
test_dataloader = dict(batch_size=20, dataset=dict(indices=51))
optim_wrapper = dict(optimizer=dict(eps=1e-4), clip_grad=dict(max_norm=0.2))
train_cfg = dict(max_epochs=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=-1))
custom_hooks = [dict(type='LossRecorder')]
"""
STEPS = 6  # of an epoch
LAYERS = 4


def train(*args):
    train_cli.main([str(arg) for arg in args])


@pytest.fixture(scope='module')
def steady(tiny_config, tmp_path_factory):
    path = tmp_path_factory.mktemp('steady') / 'steady.py'
    path.write_text(STEADY.replace('{tiny}', str(tiny_config)))
    return path


@pytest.fixture(scope='module')
def one(steady, tmp_path_factory):
    """The work dir of one process with batches of 20, and its losses; each must change a step by more than chance."""
    work_dir = tmp_path_factory.mktemp('one')
    train(steady, '--work-dir', work_dir)
    losses = read_losses(work_dir)
    assert len(losses) == 3 * STEPS and losses[-1] < losses[0] - 0.1
    assert all(line['grad_norm'] > 0.2 for line in read_scalars(work_dir) if 'grad_norm' in line)
    return work_dir, losses


def close(losses, expected):
    return losses == pytest.approx(expected, abs=1e-4)


def train_two(config, work_dir, *args):
    return run_ranks(train_cli.main, config, '--work-dir', work_dir, *args, output=work_dir.with_suffix('.txt'))


def top1(work_dir):
    return [line['accuracy/top1'] for line in read_scalars(work_dir) if 'accuracy/top1' in line]


def test_one_training_handed_on(steady, one, tmp_path):
    """An epoch of two processes, one of two that share weights and state, one of one: the losses of one process."""
    work_dir, losses = one
    ddp, fsdp, alone = tmp_path / 'ddp', tmp_path / 'fsdp', tmp_path / 'alone'
    half = 'train_dataloader.batch_size=10'
    train_two(steady, ddp, '--cfg-options', half, 'train_cfg.max_epochs=1', 'strategy.type=DDPStrategy')
    assert close(read_losses(ddp), losses[:STEPS])
    assert top1(ddp) == [pytest.approx(top1(work_dir)[0])]

    options = (half, 'train_cfg.max_epochs=2', 'strategy.type=FSDPStrategy')
    said = train_two(steady, fsdp, '--quiet', '--resume', ddp / 'epoch_1.pth', '--cfg-options', *options)
    assert close(read_losses(fsdp), losses[STEPS : 2 * STEPS])
    assert top1(fsdp) == [pytest.approx(top1(work_dir)[1])]
    assert 'FSDPStrategy' in max(fsdp.glob('*/*.log')).read_text()
    assert re.findall(r'^epoch (\d/\d)', said, re.M) == ['2/2']  # of one of the two processes

    sharded, whole = (torch.load(folder / 'epoch_2.pth', weights_only=False) for folder in (fsdp, work_dir))
    decay = [[group['weight_decay'] for group in run['optimizer']['param_groups']] for run in (sharded, whole)]
    assert decay[0] == decay[1] and set(decay[0]) == {0, 0.05}
    weights, expected = sharded['state_dict'], whole['state_dict']
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in expected.items()
    }
    train(steady, '--work-dir', alone, '--resume', fsdp / 'epoch_2.pth')
    assert close(read_losses(alone), losses[2 * STEPS :])


def test_one_process_tests_what_several_trained(steady, one, tmp_path, capsys):
    """A config that shards is tested by one process, which says so."""
    out = tmp_path / 'metrics.json'
    options = ('--cfg-options', 'strategy.type=FSDPStrategy')
    test_cli.main([str(a) for a in (steady, one[0] / 'epoch_3.pth', '--work-dir', tmp_path, '--out', out, *options)])
    assert 'One process: tested without the FSDPStrategy' in capsys.readouterr().out
    assert json.loads(out.read_text())['accuracy/top1'] == pytest.approx(top1(one[0])[-1], abs=1e-4)


@pytest.mark.parametrize('options', ['strategy.type=SingleDeviceStrategy', 'runner_type=FlexibleRunner'])
def test_half_precision_and_fewer_tokens_with_a_strategy(options, steady, one, tmp_path, capfd, fails):
    """One process tests without it, so that the model is there to be changed; several cannot, and say so."""
    given = [steady, one[0] / 'epoch_3.pth', '--work-dir', tmp_path, '--dtype', 'bfloat16', '--cfg-options', options]
    test_cli.main([*map(str, given)])
    assert 'accuracy/top1' in ''.join(capfd.readouterr())
    given = [*given[:5], 'float32', '--reduce', 'tome:r=1', '--launcher', 'pytorch', *given[6:]]
    assert '--dtype and --reduce do not work with a strategy: ' in fails(test_cli.main, *given)


def test_accumulated_steps_are_one_of_the_larger_batch(steady, one, tmp_path):
    options = ('train_dataloader.batch_size=10', 'optim_wrapper.accumulative_counts=2', 'train_cfg.max_epochs=2')
    train(steady, '--work-dir', tmp_path, '--no-validate', '--cfg-options', *options)
    losses = read_losses(tmp_path)
    assert close([(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)], one[1][: 2 * STEPS])


@pytest.fixture
def blocks_run():
    """A list with an entry for each time that a transformer block was computed."""
    calls = []
    handle = nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: calls.append(module) if isinstance(module, Mlp) else None  # each block has one
    )
    yield calls
    handle.remove()


LAYERS_1_AND_2 = 'activation_checkpointing=["backbone.encoder.layers.1","backbone.encoder.layers.2"]'


@pytest.mark.parametrize(
    'options,recomputed',
    [
        ((), 0),
        (('model.backbone.with_cp=True',), LAYERS),
        (('activation_checkpointing=backbone',), LAYERS),  # its input needs no gradient
        ((LAYERS_1_AND_2,), 2),  # with a context and without
        ((LAYERS_1_AND_2, 'strategy.type=SingleDeviceStrategy'), 2),
    ],
)
def test_recomputed_activations_change_nothing(options, recomputed, steady, one, tmp_path, blocks_run):
    options = (*options, 'train_cfg.max_epochs=1')
    train(steady, '--work-dir', tmp_path, '--no-validate', '--cfg-options', *options)
    assert len(blocks_run) == STEPS * (LAYERS + recomputed)
    assert read_losses(tmp_path) == pytest.approx(one[1][:STEPS], abs=1e-6)


_found = []


def counting(graph, inputs):
    """A backend of torch.compile that runs graphs as they are and keeps what attentions they have."""
    _found.extend(node for node in graph.graph.nodes if 'scaled_dot_product_attention' in str(node.target))
    return graph.forward


# By name, as a config says it; PyTorch keeps what it has looked up.
torch._dynamo.register_backend(counting, name='counting')


@pytest.fixture
def attention_compiled():
    """The attentions in what the backend ``counting`` was given."""
    _found.clear()
    torch._dynamo.reset()
    yield _found
    torch._dynamo.reset()


@pytest.mark.parametrize('options', [(), pytest.param(('strategy.type=SingleDeviceStrategy',), marks=pytest.mark.long)])
def test_compiled_training(options, steady, one, tmp_path, attention_compiled):
    options = (*options, 'train_cfg.max_epochs=1', 'compile.backend=counting')
    train(steady, '--work-dir', tmp_path, '--no-validate', '--cfg-options', *options)
    assert len(attention_compiled) == LAYERS  # all of them, once
    assert read_losses(tmp_path) == pytest.approx(one[1][:STEPS], abs=1e-5)


def test_mixed_precision_of_the_config(steady, one, tmp_path, monkeypatch):
    """bfloat16 where the config says so; mmengine asks for a GPU first, and the CPU can do the rest as well."""
    monkeypatch.setattr('mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: True)
    monkeypatch.setattr('mmstvit.cli.common.prepare_cpu', lambda cfg: None)
    kinds = set()
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, out: kinds.add(out.dtype) if isinstance(module, nn.Linear) else None
    )
    options = ('train_cfg.max_epochs=1', 'optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.dtype=bfloat16')
    try:
        train(steady, '--work-dir', tmp_path, '--no-validate', '--cfg-options', *options)
    finally:
        handle.remove()
    assert kinds == {torch.bfloat16}
    assert read_losses(tmp_path) == pytest.approx(one[1][:STEPS], rel=0.05)
    weights = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(
    'options,line',
    [
        (('strategy.type=FSDPStrateg',), 'strategy.type=FSDPStrateg is none of .*; did you mean FSDPStrategy'),
        (('strategy=FSDPStrategy',), 'strategy takes a dict: .*strategy.type='),
        (('strategy.type=FSDPStrategy',), 'strategy.type=FSDPStrategy is for several processes: .*tools/dist_train.sh'),
        (('strategy.type=SingleDeviceStrategy', 'runner_type=Runner'), "runner_type='Runner' knows no strategy"),
        (('strategy.type=SingleDeviceStrategy', 'model_wrapper_cfg.type=A'), 'model_wrapper_cfg has no effect'),
        (('activation_checkpointing=backbone.encoder.layers',), 'ModuleList, which is never called itself'),
    ],
)
def test_what_cannot_work_is_said(options, line, steady, tmp_path, fails):
    said = fails(train_cli.main, steady, '--work-dir', tmp_path, '--cfg-options', *options)
    assert re.search(line, said), said
