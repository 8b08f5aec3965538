import pytest
import torch
import torch.nn.functional as F

from mmstvit.functional.position import resize_table


def test_same_grid_is_the_same_tensor():
    table = torch.rand(1, 3, 5, 4)
    assert resize_table(table, (3, 5)) is table


def test_images_are_resized_as_bicubic_interpolation_of_the_map():
    table = torch.rand(1, 7, 5, 4)
    expected = F.interpolate(table.permute(0, 3, 1, 2), size=(9, 14), mode='bicubic').permute(0, 2, 3, 1)
    assert torch.equal(resize_table(table, (9, 14)), expected)


@pytest.mark.parametrize('source,target', [((6,), (9,)), ((4, 6), (7, 3)), ((2, 4, 4), (3, 5, 7))])
def test_any_rank_keeps_constants_and_type(source, target):
    table = torch.full((1, *source, 3), 0.5, dtype=torch.float16)
    resized = resize_table(table, target)
    assert resized.shape == (1, *target, 3)
    assert resized.dtype == torch.float16
    assert torch.allclose(resized.float(), torch.tensor(0.5), atol=1e-3)


def test_resizing_passes_gradients():
    table = torch.rand(1, 4, 4, 2, requires_grad=True)
    resize_table(table, (6, 8)).sum().backward()
    assert table.grad.abs().min() > 0
