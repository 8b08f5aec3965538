"""What is kept for every backbone: it compiles whole, is finite in half precision, keeps no state of its inputs."""

import copy
import threading
from functools import partial

import pytest
import torch
from small_backbones import BACKBONES, build, maps
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

HALF = (torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def image_of(name, batch=2, scale=1.0):
    return scale * torch.randn(batch, 3, *BACKBONES[name][2], generator=torch.Generator().manual_seed(1))


def step(model, call, image):
    """Outputs, and the gradients of their mean square by the name of the parameter."""
    outs = maps(call(image))
    sum(out.square().mean() for out in outs).backward()
    gradients = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()
    return outs, gradients


def build_to_compile(name):
    """With two of the layers that are alike, where there are more."""
    kind, options, _ = BACKBONES[name]
    fewer = {'STViT': dict(num_layers=4), 'STViTSwin 3D': dict(depths=(1, 2, 2, 1))}
    torch.manual_seed(0)
    return kind(**{**options, 'arch': {**options['arch'], **fewer.get(name, {})}}).eval()


# The others are parts of these, or differ in a mask or in the rank.
def long(name):
    """One of a kind of which another is compiled in all runs."""
    return pytest.param(name, marks=pytest.mark.long)


@pytest.mark.parametrize(
    'name', ['STViT', 'STViTSwin 3D', *map(long, ('STViT recover', 'T2T-ViT performer', 'STViTR dense'))]
)
def test_compiles_without_graph_breaks(name):
    """In one graph, and one for its gradients."""
    model, image = build_to_compile(name), image_of(name)
    counter = CompileCounterWithBackend('aot_eager')
    outs, gradients = step(model, torch.compile(model, fullgraph=True, backend=counter), image)
    assert counter.frame_count == 1
    expected_outs, expected = step(model, model, image)
    for a, b in zip(outs, expected_outs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    # Some gradients are zero but for rounding, e.g. of the bias of keys: compared is with the largest of all.
    largest = max(g.abs().max() for g in expected.values())
    assert all((gradients[key] - g).abs().max() <= 1e-5 * largest for key, g in expected.items())


@pytest.mark.parametrize('dtype', HALF, ids=str)
@pytest.mark.parametrize('name', BACKBONES)
def test_finite_in_half_precision_on_large_inputs(name, dtype):
    model, image = build(name).train(), image_of(name, scale=100.0)
    with torch.autocast('cpu', dtype=dtype):
        outs = maps(model(image))
        # A mean, as losses are: the sum of squares alone would overflow float16.
        loss = sum(out.float().square().mean() for out in outs)
    loss.backward()
    assert all(out.isfinite().all() for out in outs)
    wrong = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not wrong
    assert any(p.grad.abs().max() > 0 for p in model.parameters())


def state(model):
    """All that a module holds beside tensors it was made with: attributes by module and name."""
    return {
        (path, key): value if isinstance(value, (torch.Tensor, torch.nn.Module, partial)) else copy.copy(value)
        for path, module in model.named_modules()
        for key, value in vars(module).items()
    }


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('name', BACKBONES)
def test_forward_sets_no_attribute(name, training):
    model = build(name).train(training)
    before = state(model)
    for batch in (2, 3):
        model(image_of(name, batch))
    after = state(model)
    assert before.keys() == after.keys()
    changed = [key for key in before if before[key] is not after[key] and before[key] != after[key]]
    assert not changed


@pytest.mark.parametrize('name', BACKBONES)
def test_two_threads_run_one_model(name):
    """Each with a size of its own and nothing prepared: the plans of both are made while the other runs."""
    model, image = build(name), image_of(name, 1)
    images = [image[..., :-3, :-5], image[..., :-16, :-7]]  # sizes of no other test
    results, start = [[], []], threading.Barrier(2)

    def work(which):
        start.wait()
        with torch.no_grad():  # grad mode belongs to the thread
            for _ in range(3):
                results[which].append(maps(model(images[which])))

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        expected = [maps(model(i)) for i in images]
    for which in range(2):
        assert len(results[which]) == 3
        for result in results[which]:
            assert all(torch.equal(a, b) for a, b in zip(result, expected[which], strict=True))


def sizes(count, least=(64, 64)):
    """Different image sizes, odd ones among them."""
    return [(least[0] + 3 * i, least[1] + 29 * i % 64) for i in range(count)]


@pytest.mark.parametrize('name', ['STViT', long('T2T-ViT performer')])
def test_few_graphs_serve_many_sizes_without_windows(name):
    """One for each answer to: does the patch divide the height, the width; and the first, which is of one size."""
    model, counter = build_to_compile(name), CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with torch.no_grad():
        for size in sizes(12):
            compiled(torch.zeros(1, 3, *size))
    assert counter.frame_count <= 5


@pytest.mark.parametrize('name', ['STViTSwin 3D', long('STViTR dense')])
def test_graphs_of_windows_end_at_the_compilers_limit(name):
    """Windows have a graph for each size, never one with open sizes; past the limit the rest runs uncompiled."""
    model, counter, (*frames, _, _) = build_to_compile(name), CompileCounter(), BACKBONES[name][2]
    compiled, found = torch.compile(model, backend=counter), []
    with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=2):
        for size in sizes(5):
            image = torch.randn(1, 3, *frames, *size)
            out = maps(compiled(image))[0]
            found.append(counter.frame_count)
    assert found == [1] + [2] * 4
    torch.testing.assert_close(out, maps(model(image))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', ['STViT', 'STViTSwin', 'STViTR', 'STViTR dense', 'STViTSwin 3D'])
def test_an_export_leaves_nothing_behind(name):
    """One of a network that has seen no image of this size; and what it keeps then serves eager runs."""
    kind, options, size = BACKBONES[name]
    model = kind(**options).eval()
    image = torch.randn(1, 3, *size[:-2], size[-2] + 16, size[-1] - 16)
    exported = torch.export.export(model, (image,)).module()
    for a, b in zip(maps(exported(image)), maps(model(image)), strict=True):
        assert type(b) is torch.Tensor
        torch.testing.assert_close(a, b)


def test_fake_tensors_are_not_kept():
    kind, options, _ = BACKBONES['STViTSwin']
    with FakeTensorMode():
        maps(kind(**options)(torch.randn(1, 3, 112, 48)))
    assert all(type(out) is torch.Tensor for out in maps(kind(**options)(torch.randn(1, 3, 112, 48))))


@pytest.mark.parametrize('name', BACKBONES)
def test_a_batch_without_images(name):
    model, image = build(name).eval(), image_of(name)
    for one, none in zip(maps(model(image)), maps(model(image[:0])), strict=True):
        assert none.shape == (0, *one.shape[1:])
