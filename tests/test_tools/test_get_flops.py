"""tools/analysis_tools/get_flops.py: figures of all toolboxes, by config, by name, and of other packages' networks."""

import json
import re

import mmengine
import pytest
import torch
from run_helpers import DETECTION, ROOT, VIDEO

from mmstvit.cli.flops import main
from mmstvit.console import readable
from mmstvit.errors import UsageError
from mmstvit.measure.figures import figures
from mmstvit.measure.inputs import Inputs
from mmstvit.measure.networks import input_shape, load_network


@pytest.fixture
def written(tmp_path):
    """Write a config of one of the templates."""

    def write(text, name='config.py'):
        path = tmp_path / name
        path.write_text(text.replace('{root}', str(tmp_path)))
        return str(path)

    return write


def test_reduced_networks(written, capsys):
    """The method and its options stand behind the network's name."""
    pytest.importorskip('timm')
    name = 'timm:vit_tiny_patch16_224'
    main([name, f'{name}+tome:r=13', f'{name}+evit:keep_rate=0.5,blocks=(3,6)', '--shape', '224', '224'])
    printed = capsys.readouterr().out
    assert f'{name}+tome:r=13' in printed
    plain, merged, _ = (load_network(spec).model for spec in (name, f'{name}+tome:r=13', f'{name}+evit:keep_rate=0.5'))
    assert not hasattr(plain, 'reduction') and merged.reduction.r == 13
    for spec, line in (
        (f'{name}+nonsense:r=1', "method='nonsense' is unknown"),
        (f'{name}+tome:r=', "'tome:r=' is no reduction: write METHOD:OPTION=VALUE"),
        (f'{name}+tome:5', 'is no reduction'),
        (f'{name}+tome', 'give one of r, keep_rate and budget'),
        (written(VIDEO) + '+tome:r=1', 'cannot be reduced'),
    ):
        with pytest.raises(UsageError, match=re.escape(line)):
            load_network(spec)


def test_tables_and_json(tiny_config, tmp_path, capsys):
    out = tmp_path / 'new' / 'figures.json'
    main([str(tiny_config), 'digits/vit-tiny_digits.py', '--shape', '24', '40', '--json', str(out)])
    ours, dense = json.loads(out.read_text())
    assert ours['network'] == 'tiny' and ours['shape'] == [3, 24, 40]
    # Four layers of 15 image tokens; then the STGM and one layer on 4 semantic tokens.
    tokens = [(part['tokens'], part['context']) for part in ours['parts'] if part['tokens']]
    assert tokens == [(15, None), (4, 19), (4, 19), (4, None)]
    for row in (ours, dense):
        assert row['flops'] == 2 * row['multiply_adds'] == sum(part['flops'] for part in row['parts'])
        assert row['parameters'] == sum(part['parameters'] for part in row['parts'])
    head = 32 * 10
    assert ours['backbone']['multiply_adds'] == ours['multiply_adds'] - head
    assert ours['backbone']['parameters'] == ours['parameters'] - head - 10
    assert ours['not_counted'] == []
    text = capsys.readouterr().out
    assert '4 seeing 19' in text and readable(ours['multiply_adds']) in text
    ratio = dense['multiply_adds'] / ours['multiply_adds']
    assert f'{readable(dense["multiply_adds"])} ({ratio:.2f} x)' in text


def test_names_of_the_model_index_and_their_test_size():
    found = figures(load_network('stvit-t_8xb128_in1k'))
    assert found.shape == (3, 224, 224)
    metafile = mmengine.load(ROOT / 'configs' / 'stvit' / 'metafile.yml')
    said = next(m for m in metafile['Models'] if m['Name'] == 'stvit-t_8xb128_in1k')['Metadata']
    assert found.whole.multiply_adds == pytest.approx(said['FLOPs'], rel=0.01)
    assert found.whole.parameters == said['Parameters']


def test_networks_of_other_packages():
    pytest.importorskip('timm')
    theirs = load_network('mmpretrain:deit-tiny_4xb256_in1k')
    assert theirs.top1 == 74.5 and theirs.toolbox == 'mmpretrain' and theirs.size == (224, 224)
    timms = load_network('timm:deit_tiny_patch16_224')
    ours, other = figures(theirs), figures(timms)
    assert ours.whole.multiply_adds == other.whole.multiply_adds
    assert ours.backbone == other.backbone == ours.whole.multiply_adds - 192 * 1000


def test_one_stage_detectors_with_neck_and_head(written):
    pytest.importorskip('mmdet')
    found = figures(load_network(written(DETECTION)))
    assert found.shape == (3, 96, 96)
    parts = {part.name.split('.')[0]: 0 for part in found.whole.parts}
    for part in found.whole.parts:
        parts[part.name.split('.')[0]] += part.multiply_adds
    # Levels of 12, 6, 3, 2 and 1 tokens a side; two towers of one 3 x 3 convolution, 9 anchors, 2 classes.
    places = 144 + 36 + 9 + 4 + 1
    assert parts['bbox_head'] == places * 9 * (2 * 16 * 16 + 16 * 9 * (2 + 4))
    assert parts['backbone'] == found.backbone and parts['neck'] > 0
    assert sum(parts.values()) == found.whole.multiply_adds


def test_two_stage_detectors_run_their_heads_on_as_many_proposals_as_the_config_says(written):
    pytest.importorskip('mmdet')

    def parts(number):
        path = written(
            "_base_ = ['mmstvit::digits/mask-rcnn_stvit-r_digits.py']\n"
            f'model = dict(test_cfg=dict(rpn=dict(max_per_img={number})))\n',
            f'{number}.py',
        )
        network = load_network(path)
        assert network.size == (128, 128)
        found = figures(network, (64, 64))
        return {part.name: part.multiply_adds for part in found.whole.parts}

    few, many = parts(10), parts(20)
    assert few['roi_head.bbox_head'] > 0
    for name in few:
        times = 2 if name.startswith('roi_head') else 1
        assert many[name] == times * few[name], name


def test_segmentors_without_auxiliary_heads(written):
    pytest.importorskip('mmseg')
    network = load_network(written("_base_ = ['mmstvit::digits/upernet_stvit-r_digits.py']"))
    assert network.size == (128, 128)
    found = figures(network, (64, 64))
    parts = {part.name: part for part in found.whole.parts}
    assert parts['decode_head.fpn_bottleneck'].multiply_adds == 16 * 16 * 9 * 256 * 64
    assert not any(part.multiply_adds for name, part in parts.items() if name.startswith('auxiliary_head'))
    assert 0 < found.backbone < found.whole.multiply_adds
    assert torch.isfinite(Inputs(network, (3, 64, 64), 2).loss())


def test_recognisers_of_frames_and_of_clips(written):
    pytest.importorskip('mmaction')
    frames = load_network(written(VIDEO))
    assert frames.size == (2, 32, 32)  # two frames
    two, four = figures(frames), figures(frames, (4, 32, 32))
    assert four.backbone == 2 * two.backbone
    assert two.whole.multiply_adds - two.backbone == 512 * 2  # the head, after the mean over frames
    clips = load_network('digits/stvit-swin3d_digits.py')
    assert len(clips.size) == 3
    found = figures(clips)
    assert found.shape == (3, *clips.size)
    assert 0 < found.backbone < found.whole.multiply_adds


def test_shapes_that_do_not_fit(tiny_config):
    network = load_network(str(tiny_config))
    for shape in ((32,), (8, 32, 32), (0, 32)):
        with pytest.raises(UsageError, match='give H W for images'):
            input_shape(network, shape)
    network.size = ()
    with pytest.raises(UsageError, match='give --shape'):
        input_shape(network, None)


@pytest.mark.parametrize(
    'arguments,message',
    [
        (['digits/stvit-tiny_digit.py'], 'did you mean configs/digits/stvit-tiny_digits.py?'),
        (['mmpretrain:deit-tiny_4xb256_in1'], 'did you mean deit-tiny_4xb256_in1k?'),
        (['timm:deit_tiny_patch16_225'], 'timm has no model deit_tiny_patch16_225; did you mean'),
        (['digits/stvit-tiny_digits.py', '--json', 'figures.txt'], 'name it *.json'),
        (['digits/stvit-tiny_digits.py', '--shape', '1', '2', '3'], 'give H W for images'),
    ],
)
def test_wrong_arguments_are_told_in_one_line(arguments, message, fails):
    assert message in fails(main, *arguments)
