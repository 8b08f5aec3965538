"""Pictures hold what the maps say, unblurred; the command writes them, and says what is wrong in one line."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from run_helpers import DENSE, TINY, run_here, saved

from mmstvit import get_model, reduce_
from mmstvit.cli.show_tokens import main
from mmstvit.visualization import LayerMaps, TokenMaps, token_maps
from mmstvit.visualization.colours import distinct_colours
from mmstvit.visualization.groups import overlay as draw_groups
from mmstvit.visualization.groups import token_groups
from mmstvit.visualization.panels import grid_of_panels, scaled
from mmstvit.visualization.pictures import common_peak, heat, most_covering, overlay, palette, picture, sheet

RNG = np.random.default_rng(0)


def layer(role='refine', unit=1, tokens=4, grid=(4, 6), size=(16, 24), seed=0):
    attention = np.random.default_rng(seed).random((tokens, *grid)).astype(np.float32)
    attention /= attention.sum(0 if role == 'recover' else tuple(range(1, attention.ndim)), keepdims=True)
    cell = tuple(-(-s // g) for s, g in zip(size, grid))
    return LayerMaps(f'{role}{unit}', role, unit, attention, np.ones(tokens), np.ones(tokens, bool), cell, size)


def maps_of(units=1, roles=('generate', 'refine')):
    layers = tuple(layer(role, unit, seed=unit) for unit in range(1, units + 1) for role in roles)
    return TokenMaps(RNG.integers(0, 255, (16, 24, 3), dtype=np.uint8), (2, 2), layers)


def contains(whole, part):
    """Whether ``part`` is somewhere in ``whole``, pixel by pixel."""
    whole, part = (a.astype(np.int32) @ np.array([1, 256, 65536], np.int32) for a in (whole, part))
    rows, columns = (n - m + 1 for n, m in zip(whole.shape, part.shape))
    places = None
    # A few pixels leave few places to compare as a whole.
    for y, x in np.random.default_rng(0).integers(0, part.shape, (24, 2)):
        if places is None:
            places = np.argwhere(whole[y : y + rows, x : x + columns] == part[y, x])
        else:
            places = places[whole[places[:, 0] + y, places[:, 1] + x] == part[y, x]]
    return any(np.array_equal(whole[y : y + part.shape[0], x : x + part.shape[1]], part) for y, x in places)


def side_of(whole, draw, *args):
    """The shorter side at which ``draw`` gives what is in a picture: of 16 pixels, enlarged by a whole number."""
    return next(side for side in range(64, 400, 16) if shows(whole, draw, *args, side))


def shows(whole, draw, *args):
    """Whether a picture has what is drawn; without its upper half, where single tokens have their number."""
    part = draw(*args)
    return contains(whole, part[len(part) // 2 :])


@pytest.mark.parametrize('grid,apart', [((4, 4), 80), ((6, 6), 60), ((8, 8), 34), ((4, 8, 8), 17)])
def test_tokens_have_different_colours(grid, apart):
    """Any two: they may be neighbours on an image. There is no room for more than so far apart."""
    colours = palette(grid).astype(int)
    assert colours.shape == (np.prod(grid), 3)
    distances = np.abs(colours[:, None] - colours).sum(-1)
    assert distances[np.triu_indices(len(colours), 1)].min() >= apart
    np.testing.assert_array_equal(distinct_colours(5), colours[:5])


def test_overlay_is_of_the_colour_of_the_token_and_bordered():
    """Channels are in the order of those of the token's colour; what belongs to none is grey; light is lighter."""
    assigned = np.repeat([[0, 1, -1]], 8, 0).repeat(4, 1)
    dark, found = (overlay(np.full((8, 12, 3), grey, np.uint8), assigned, (1, 2), 8) for grey in (20, 100))
    for columns, colour in ((range(4), palette((1, 2))[0]), (range(5, 8), palette((1, 2))[1]), (range(9, 12), None)):
        area = found[:, columns].reshape(-1, 3)
        assert (area == area[0]).all() and (area[0] > dark[0, columns[0]]).all()
        assert len(set(area[0])) == 1 if colour is None else area[0].argsort().tolist() == colour.argsort().tolist()
    assert (found[:, [4, 8]] == 255).all() and (found == 255).all(-1).sum() == 16


def test_overlay_has_numbers_where_they_fit():
    assigned = np.zeros((8, 12), int)
    assigned[:, 6:] = 3
    numbered = overlay(np.zeros((8, 12, 3), np.uint8), assigned, (2, 2), 80)
    colours = {tuple(c) for c in numbered.reshape(-1, 3)}
    assert (0, 0, 0) in colours and len(colours) > 10  # outlines, and the shades of what is drawn smoothly
    bare = overlay(np.zeros((8, 12, 3), np.uint8), assigned, (2, 2), 8)
    assert len({tuple(c) for c in bare.reshape(-1, 3)}) == 3


def test_small_regions_have_no_numbers():
    """Of the picture's 14 x 14 cells a single one is not numbered, three in a row are."""
    assigned = np.zeros((14, 14), int)
    assigned[3, 3:6] = 1
    three = overlay(np.zeros((14, 14, 3), np.uint8), assigned, (2, 2), 448)[97:127, 97:191].reshape(-1, 3)
    assert len({tuple(colour) for colour in three}) > 3
    single = np.zeros((14, 14), int)
    single[3, 3] = 1
    inside = overlay(np.zeros((14, 14, 3), np.uint8), single, (2, 2), 448)[97:127, 97:127].reshape(-1, 3)
    assert len({tuple(colour) for colour in inside}) == 1


@pytest.mark.parametrize('alpha', [0, 0.5, 1])
def test_share_of_colours(alpha):
    image = RNG.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    found = overlay(image, np.zeros((4, 4), int), (1, 1), 4, alpha)
    expected = alpha * palette((1, 1))[0] + (1 - alpha) * image.mean(-1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize('role,size', [('refine', (16, 24)), ('recover', (16, 24))])
def test_flat_attention_looks_flat_on_the_common_scale(role, size):
    flat = np.full((4, 4, 6), 1 / 4 if role == 'recover' else 1 / 24, np.float32)
    one = LayerMaps('a', role, 1, flat, np.ones(4), np.ones(4, bool), (4, 4), size)
    soft, grey = one.resized(), np.full((*size, 3), 90, np.uint8)
    np.testing.assert_allclose(soft, one.flat(), rtol=1e-5)
    own, common = heat(grey, soft[0], None, 16), heat(grey, soft[0], common_peak(soft, one.flat()), 16)
    assert own.mean() > 2 * common.mean() and common.std(axis=(0, 1)).max() == 0
    soft[0, 3, 3] = 1
    assert common_peak(soft, one.flat()) == 1  # what is more than that has its own scale


def test_heat_is_brightest_where_the_token_looks():
    soft = np.zeros((6, 8), np.float32)
    soft[2, 5] = 0.5
    found = heat(np.full((6, 8, 3), 90, np.uint8), soft, None, 6).sum(-1)
    assert found.argmax() == 2 * 8 + 5
    rest = np.delete(found.ravel(), found.argmax())
    assert (rest == rest[0]).all() and 0 < rest[0] < 3 * 90  # the darkened image everywhere else
    dimmer = heat(np.full((6, 8, 3), 90, np.uint8), soft, 1.0, 6).sum(-1)
    assert dimmer[2, 5] < found[2, 5]


def test_sizes_change_by_whole_numbers():
    small, numbers = RNG.integers(0, 255, (3, 5, 3), dtype=np.uint8), RNG.integers(0, 9, (40, 60))
    np.testing.assert_array_equal(scaled(small, 10), small.repeat(4, 0).repeat(4, 1))
    assert scaled(numbers, 15).shape == (20, 30) and set(np.unique(scaled(numbers, 15))) <= set(range(9))
    assert scaled(np.ones((40, 60), np.float32), 41).shape == (80, 120)


@pytest.mark.parametrize('roles', [('generate', 'refine'), ('generate', 'refine', 'recover')])
@pytest.mark.parametrize('units', [1, 2])
def test_picture_holds_every_map_pixel_by_pixel(units, roles):
    maps = maps_of(units, roles)
    whole = picture(maps, title='it $is$ 100 %')
    assert whole.dtype == np.uint8 and whole.shape[-1] == 3
    large = side_of(whole, scaled, maps.image)
    small = side_of(whole, heat, maps.image, maps.layers[0].resized()[0], None)
    for one in maps.layers:
        assert shows(whole, overlay, maps.image, one.assigned(), (2, 2), large)
        for soft in one.resized():
            assert shows(whole, heat, maps.image, soft, None, small)


def test_picture_of_chosen_tokens():
    maps = maps_of()
    assert picture(maps, [3]).shape != picture(maps, [0, 1]).shape
    soft = maps.layers[1].resized()
    side = side_of(picture(maps, [2, 1]), heat, maps.image, soft[2], None)
    assert shows(picture(maps, [2, 1]), heat, maps.image, soft[1], None, side)
    assert not shows(picture(maps, [2, 1]), heat, maps.image, soft[3], None, side)
    with pytest.raises(ValueError, match='there is no semantic token 4'):
        picture(maps, [4])


def test_most_covering_tokens():
    attention = np.zeros((4, 1, 6), np.float32)
    for cell, token in enumerate((2, 0, 2, 3, 3, 2)):
        attention[token, 0, cell] = 1
    one = LayerMaps('l', 'refine', 1, attention, np.ones(4), np.ones(4, bool), (4, 4), (4, 24))
    assert most_covering(one, 2) == [2, 3] and most_covering(one) == [0, 1, 2, 3]


def test_strip_of_a_clip():
    layers = tuple(
        layer(role, tokens=4, grid=(5, 2, 3), size=(10, 16, 24), seed=i)
        for i, role in enumerate(('generate', 'refine'))
    )
    maps = TokenMaps(RNG.integers(0, 255, (10, 16, 24, 3), dtype=np.uint8), (1, 2, 2), layers)
    whole = picture(maps, [1])
    side = side_of(whole, scaled, maps.image[0])
    shown = [t for t in range(10) if shows(whole, scaled, maps.image[t], side)]
    assert len(shown) > 5 and shown[-1] == 9
    assert shows(whole, overlay, maps.image[9], layers[0].assigned()[9], (1, 2, 2), side)
    soft = layers[1].resized([1])[0]
    assert shows(whole, heat, maps.image[9], soft[9], float(soft.max()), side)
    assert picture(maps).shape[0] > whole.shape[0]  # four tokens, by default


def test_contact_sheet_of_images_and_of_clips():
    several = [maps_of() for _ in range(5)]
    whole = sheet(several, [f'sample {i}' for i in range(5)])
    side = side_of(whole, scaled, several[0].image)
    for maps in several:
        assert shows(whole, overlay, maps.image, maps.layers[1].assigned(), (2, 2), side)
    clip = layer(grid=(5, 2, 3), size=(10, 16, 24))
    maps = TokenMaps(RNG.integers(0, 255, (10, 16, 24, 3), dtype=np.uint8), (1, 2, 2), (clip,))
    assert side_of(sheet([maps]), scaled, maps.image[5])


def test_panels_of_different_sizes():
    panels = [RNG.integers(0, 255, (*size, 3), dtype=np.uint8) for size in ((20, 50), (40, 30), (33, 10), (70, 70))]
    whole = grid_of_panels([[(panels[0], 'a'), (panels[1], '')], [(panels[2], ''), (panels[3], '')]], names=['x', 'y'])
    assert all(contains(whole, panel) for panel in panels)


# ------------------------------------------------------------------------------------------------------ the command
@pytest.fixture(scope='module')
def network(tmp_path_factory):
    """A small network with random weights in a checkpoint, and images for it."""
    folder = tmp_path_factory.mktemp('network')
    config, checkpoint = folder / 'tiny.py', folder / 'tiny.pth'
    config.write_text(TINY)
    torch.manual_seed(0)
    model = get_model(str(config))
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    images = []
    for name in ('seven.png', 'contact_sheet.png', 'sub/seven.png'):
        images.append(folder / name)
        images[-1].parent.mkdir(exist_ok=True)
        cv2.imwrite(str(images[-1]), RNG.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    return model, str(config), str(checkpoint), [str(image) for image in images]


def run(monkeypatch, *args):
    run_here(monkeypatch, 'visualization/show_tokens.py', *args)


def test_command_writes_pictures_and_arrays(network, tmp_path, monkeypatch, capsys):
    model, config, checkpoint, images = network
    out = tmp_path / 'new' / 'maps.npz'
    run(monkeypatch, config, checkpoint, *images, '--show-dir', str(tmp_path), '--out', str(out), '--tokens', '0', '3')
    written = {path.relative_to(tmp_path).as_posix(): cv2.imread(str(path)) for path in tmp_path.rglob('*.png')}
    assert set(written) == {'seven.png.png', 'contact_sheet.png.png', 'sub/seven.png.png', 'contact_sheet.png'}
    assert all(name in capsys.readouterr().out or image.size for name, image in written.items())
    arrays = np.load(out)
    assert list(arrays['inputs']) == images
    for number, image in enumerate(images):
        expected = token_maps(model, image)
        found = {key.split('/', 1)[1]: arrays[key] for key in arrays if key.startswith(f'{number}/')}
        assert found.keys() == expected.arrays().keys()
        for key, value in expected.arrays().items():
            np.testing.assert_allclose(found[key], value, atol=1e-6)
    seven = token_maps(model, images[0])
    for name in ('seven.png.png', 'contact_sheet.png'):
        assert side_of(written[name][..., ::-1], overlay, seven.image, seven.layers[1].assigned(), (2, 2))


def test_a_single_input_has_no_contact_sheet(network, tmp_path, monkeypatch):
    _, config, checkpoint, images = network
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, config, checkpoint, images[0])
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*.*')] == ['work_dirs/tiny/tokens/seven.png.png']


def test_pictures_are_not_written_over_inputs(network, tmp_path, monkeypatch, fails):
    """Into the folder of the inputs they may go; there the picture of one is an input the next time."""
    _, config, checkpoint, images = network
    for name in ('a.png', 'b.png'):
        shutil.copy(images[0], tmp_path / name)
    run(monkeypatch, config, checkpoint, str(tmp_path), '--show-dir', str(tmp_path))
    names = {'a.png', 'b.png', 'a.png.png', 'b.png.png', 'contact_sheet.png'}
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.name for path in before} == names and before[tmp_path / 'a.png'] == Path(images[0]).read_bytes()
    line = fails(main, config, checkpoint, tmp_path, '--show-dir', tmp_path)
    assert 'a.png.png would be written over' in line and '--show-dir' in line
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_command_draws_groups_of_reduced_networks(network, tmp_path, monkeypatch, fails):
    _, _, _, images = network
    config, checkpoint = saved(tmp_path, DENSE, tuple('0123456789'))
    out, reduced = tmp_path / 'groups.npz', ['--reduce', 'tome:r=2']
    run(monkeypatch, config, checkpoint, *images, *reduced, '--show-dir', str(tmp_path), '--out', str(out))
    assert (tmp_path / 'seven.png.png').is_file() and (tmp_path / 'sub/seven.png.png').is_file()
    groups = token_groups(reduce_(get_model(config, checkpoint), 'tome', r=2), images[0])
    picture = cv2.imread(str(tmp_path / 'contact_sheet.png'))[..., ::-1]
    assert side_of(picture, draw_groups, groups.image, groups.layers[-1].groups)
    arrays = np.load(out)
    for layer in groups.layers:
        np.testing.assert_array_equal(arrays[f'0/block{layer.block}'], layer.groups)
    assert '--alpha' in fails(main, config, checkpoint, images[0], *reduced, '--alpha', '0.2')


WRONG = {
    'no such image': (['nowhere.png'], 'there is no file or folder nowhere.png'),
    'no image': (['{config}'], 'error: '),
    'no such token': (
        ['{image}', '--tokens', '4'],
        '--tokens: there is no semantic token 4: they are numbered from 0 to 3',
    ),
    'no such unit': (['{image}', '--unit', '2'], 'there is no unit 2: they are numbered from 1 to 1'),
    'no such view': (['{image}', '--view', '1'], 'there is no view 1: the network got 1, counted from 0'),
    'another ending': (['{image}', '--out', 'maps.npy'], '--out maps.npy: name it *.npz'),
    'no semantic tokens': (
        ['{image}', '--cfg-options', 'model.backbone.semantic_grid=None', 'model.backbone.stgm_layer=4'],
        'ImageClassifier has no semantic tokens',
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_what_is_wrong_is_said_in_one_line(case, network, tmp_path, monkeypatch, fails):
    _, config, checkpoint, images = network
    monkeypatch.chdir(tmp_path)
    args, said = WRONG[case]
    assert said in fails(main, config, checkpoint, *(a.format(config=config, image=images[0]) for a in args))
    assert not list(tmp_path.rglob('*.png'))
