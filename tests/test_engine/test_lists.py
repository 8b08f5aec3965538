"""Lists of samples and of class names as editors leave them: byte order marks, CRLF, blank lines."""

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmstvit.apis.models import toolbox_of
from mmstvit.engine.datasets import build_dataset
from mmstvit.errors import UsageError

EDITED = {
    'blank last line': lambda text: text + '\n',
    'blank last lines': lambda text: text + '  \n\n\t\n',
    'no line break at the end': lambda text: text.rstrip('\n'),
    'byte order mark': lambda text: '\ufeff' + text,
    'CRLF': lambda text: text.replace('\n', '\r\n'),
    'blanks at the ends': lambda text: text.replace('\n', ' \t\n'),
    'all': lambda text: '\ufeff' + text.replace('\n', ' \r\n') + '\r\n',
}


@pytest.fixture(params=EDITED)
def edited(request):
    return lambda path, text: path.write_bytes(EDITED[request.param](text).encode())


def build(scope, trust_data=False, **settings):
    toolbox_of(Config(dict(default_scope=scope)))
    with DefaultScope.overwrite_default_scope(scope):
        return build_dataset(dict(pipeline=[], **settings), trust_data)


@pytest.mark.parametrize('trust_data', [False, True])
def test_list_of_images(edited, tmp_path, trust_data):
    pytest.importorskip('mmpretrain')
    edited(tmp_path / 'list.txt', 'a.png 1\nb c.png 0\n')
    edited(tmp_path / 'classes.txt', 'cat\ngrey dog\n')
    common = dict(type='CustomDataset', data_root=str(tmp_path), classes=str(tmp_path / 'classes.txt'))
    dataset = build('mmpretrain', trust_data, ann_file='list.txt', **common)
    read = [(info['img_path'], info['gt_label']) for info in map(dataset.get_data_info, range(len(dataset)))]
    assert read == [(f'{tmp_path}/a.png', 1), (f'{tmp_path}/b c.png', 0)]
    assert tuple(dataset.CLASSES) == ('cat', 'grey dog')
    common['metainfo'] = dict(classes=common.pop('classes'))
    edited(tmp_path / 'names.txt', 'a.png\nb c.png\n')
    dataset = build('mmpretrain', trust_data, ann_file='names.txt', with_label=False, **common)
    assert [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))] == [path for path, _ in read]
    assert tuple(dataset.metainfo['classes']) == ('cat', 'grey dog')


def test_lists_of_clips(edited, tmp_path):
    pytest.importorskip('mmaction')
    for name in ('a.mp4', 'b.mp4'):
        (tmp_path / name).write_bytes(b'\0')
    edited(tmp_path / 'list.txt', 'a.mp4 1\nb.mp4 0\n')
    common = dict(ann_file=str(tmp_path / 'list.txt'))
    dataset = build('mmaction', type='VideoDataset', data_prefix=dict(video=str(tmp_path)), **common)
    assert [(i['filename'], i['label']) for i in map(dataset.get_data_info, range(len(dataset)))] == [
        (f'{tmp_path}/a.mp4', 1),
        (f'{tmp_path}/b.mp4', 0),
    ]
    edited(tmp_path / 'list.txt', 'a 7 1\nb 9 0\n')
    dataset = build('mmaction', type='RawframeDataset', data_prefix=dict(img=str(tmp_path)), **common)
    read = [(i['frame_dir'], i['total_frames'], i['label']) for i in map(dataset.get_data_info, range(len(dataset)))]
    assert read == [(f'{tmp_path}/a', 7, 1), (f'{tmp_path}/b', 9, 0)]


def test_blank_lines_in_the_middle(tmp_path):
    """They may be an entry that was lost; labels of the classes below would be others."""
    pytest.importorskip('mmpretrain')
    (tmp_path / 'list.txt').write_text('a.png 1\n\nb.png 0\n')
    (tmp_path / 'whole.txt').write_text('a.png 1\nb.png 0\n')
    classes = tmp_path / 'classes.txt'
    classes.write_text('cat\n\ndog\n')
    common = dict(type='CustomDataset', data_root=str(tmp_path))
    with pytest.raises(UsageError, match=f'^{tmp_path}/list.txt: the data set cannot be read'):
        build('mmpretrain', ann_file='list.txt', **common)
    for named in (dict(classes=str(classes)), dict(metainfo=dict(classes=str(classes)))):
        with pytest.raises(UsageError, match=f'^{classes}: line 2 is blank'):
            build('mmpretrain', ann_file='whole.txt', **common, **named)
