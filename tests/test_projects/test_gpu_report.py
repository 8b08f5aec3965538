"""``make gpu-report``: what becomes of failures, of the time, and of what an earlier run has left."""

import csv
import json
import signal
import time

import pytest
import torch
from torch import nn

from mmstvit import models
from mmstvit.apis.configs import find_config
from mmstvit.errors import UsageError
from mmstvit.measure import timing
from mmstvit.measure.networks import Network
from mmstvit.measure.timing import Job, Timing
from projects.gpu_report import parity, suite
from projects.gpu_report.__main__ import main
from projects.gpu_report.entries import BARE, SECTIONS, Entry, entries, gpu_entries
from projects.gpu_report.kernels import attention_kernels, kind_of, text_of
from projects.gpu_report.report import COLUMNS, UNTESTED, page, write_csv
from projects.gpu_report.suite import Suite, run_suite

DENSE, REDUCED = 'ViT', 'ViT+tome:r=8'


@pytest.fixture
def quick(monkeypatch):
    """A suite whose networks are of ``made``: one attention each, ``broken`` ones fail."""
    monkeypatch.setattr(suite, 'load', made)
    return Suite('cpu', rounds=2, min_time=0)


class OneAttention(nn.Module):
    def __init__(self, broken):
        super().__init__()
        self.broken, self.project = broken, nn.Linear(8, 8)

    def forward(self, x):
        if self.broken and x.shape[0] > 1:
            raise RuntimeError('out of\nmemory')
        x = self.project(x)
        return nn.functional.scaled_dot_product_attention(x, x, x)


def made(name):
    return Network(name, 'mmstvit', OneAttention('broken' in name).eval(), (4, 8))


def entry(*networks, section='speed', batch=2):
    return Entry(section, networks, batch=batch, cast=False)


def test_what_fails_is_a_row_and_the_others_are_measured(quick, tmp_path):
    path = tmp_path / 'suite.json'
    report = run_suite([entry('dense', 'broken', 'good'), entry('broken', 'good'), entry('dense')], quick, 1, path)
    first, second, third = (found['rows'] for found in report['entries'].values())
    assert [row['network'] for row in first] == ['dense', 'broken', 'good']
    assert ['error' in row for row in first] == [False, True, False]
    assert first[1]['error'] == 'RuntimeError: out of memory'
    assert first[2]['ratio']['median'] > 0 and first[2]['kernel'] == 'flash (CPU)'
    assert [row['error'] for row in second] == ['RuntimeError: out of memory'] * 2
    assert 'error' not in third[0] and third[0]['precision'] == 'float32' and third[0]['peak_memory'] > 0
    assert report['not_run'] == []
    table = tmp_path / 'suite.csv'
    write_csv(report, table)
    rows = list(csv.DictReader(table.open()))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 6
    assert {'model', 'infer_samples_per_sec', 'infer_step_time', 'infer_batch_size', 'infer_gmacs'} <= set(COLUMNS)
    good = rows[2]
    assert (good['model'], good['peer'], good['mode'], good['kernel']) == ('good', 'dense', 'eager', 'flash (CPU)')
    assert float(good['samples_per_sec_low']) <= float(good['infer_samples_per_sec'])
    assert rows[1]['error'] == 'RuntimeError: out of memory' and rows[1]['infer_samples_per_sec'] == ''


def test_it_stops_when_the_time_is_over(quick, tmp_path, monkeypatch):
    clock, seen = [0.0], []
    monkeypatch.setattr(suite.time, 'monotonic', lambda: clock[0])

    def rows(self, wanted):
        seen.append(wanted.networks[0])
        clock[0] += 40
        return [dict(network=wanted.networks[0], dtype='float32', value=0.0, limit=1.0)]

    monkeypatch.setattr(Suite, 'rows', rows)
    path, kept = tmp_path / 'suite.json', []
    wanted = [entry(name, section='operators') for name in 'abc']
    report = run_suite(wanted, quick, 1, path, lambda report: kept.append(json.loads(path.read_text())))
    assert seen == ['a', 'b'] and report['not_run'] == [wanted[2].key]
    # Whole after each entry: a kill loses nothing.
    assert [len(found['entries']) for found in kept] == [1, 2, 2]
    assert kept[0]['not_run'] == [wanted[1].key, wanted[2].key]
    assert f'- {wanted[2].key}' in list(page(report))
    clock[0] = 0
    assert run_suite(wanted, quick, 1, path)['not_run'] == [] and seen == ['a', 'b', 'c']


def test_an_earlier_run_is_gone_on_with_and_failures_come_last(quick, tmp_path, monkeypatch):
    seen, broken = [], ['a']

    def rows(self, wanted):
        name = wanted.networks[0]
        seen.append(name)
        return [dict(network=name, dtype='float32', **(dict(error='Oh') if name in broken else dict(value=0.0)))]

    monkeypatch.setattr(Suite, 'rows', rows)
    path = tmp_path / 'suite.json'
    wanted = [entry(name, section='operators') for name in 'abc']
    run_suite(wanted[:2], quick, 1, path)
    broken.clear()
    report = run_suite(wanted, quick, 1, path)
    assert seen == ['a', 'b', 'c', 'a']
    assert all('error' not in found['rows'][0] for found in report['entries'].values())
    found = json.loads(path.read_text())
    found['environment']['device'] = 'a GPU'
    path.write_text(json.dumps(found))
    with pytest.raises(UsageError, match='of another machine'):
        run_suite(wanted, quick, 1, path)
    path.write_text('[]')
    with pytest.raises(UsageError, match='no file of results'):
        run_suite(wanted, quick, 1, path)


@pytest.mark.skipif(not hasattr(signal, 'SIGALRM'), reason='needs a clock that interrupts')
def test_an_entry_that_hangs_is_given_up(quick, tmp_path, monkeypatch):
    def rows(self, wanted):
        if wanted.networks[0] == 'a':
            time.sleep(5)
        return [dict(network=wanted.networks[0], dtype='float32', value=0.0)]

    monkeypatch.setattr(Suite, 'rows', rows)
    monkeypatch.setattr(suite, 'ENTRY_SECONDS', 0.05)
    report = run_suite([entry('a'), entry('b')], quick, 1, tmp_path / 'suite.json')
    first, second = report['entries'].values()
    assert first['rows'][0]['error'] == 'gave up after 0.05 s' and 'error' not in second['rows'][0]


def test_a_network_beside_its_peer(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, 'load_network', lambda spec: Network(spec, 'mmstvit', *parity.network(spec)))
    monkeypatch.setattr(timing, 'peak_bytes', lambda run, device: 2**20)  # half a second each
    quick = Suite('cpu', rounds=2, min_time=0)
    wanted = [Entry('speed', (DENSE, REDUCED), 'bfloat16')]
    report = run_suite(wanted, quick, 1, tmp_path / 'suite.json', command='python -m projects.gpu_report')
    (speed,) = (found['rows'] for found in report['entries'].values())
    assert [row['precision'] for row in speed] == ['cast', 'cast']
    assert speed[1]['multiply_adds'] < speed[0]['multiply_adds'] and speed[1]['reduction']['method'] == 'ToMe'
    speed[1]['kernel'] = 'efficient 11, flash 1'
    lines = '\n'.join(page(report))
    assert f'- {REDUCED}: efficient 11, flash 1' in lines and f'- {DENSE}:' not in lines
    assert 'python -m projects.gpu_report' in lines
    assert f'{UNTESTED.capitalize()} on a GPU' in lines and f'| {UNTESTED} |' in lines


def test_differences_from_the_cpu_are_told(quick, monkeypatch):
    rows = quick.rows(entry('STViT', section='parity'))
    assert [row['dtype'] for row in rows] == ['float32', 'bfloat16']
    assert rows[0]['value'] == 0 < rows[1]['value'] < rows[1]['limit'] and 'error' not in rows[1]
    monkeypatch.setitem(parity.LIMITS, 'bfloat16', 1e-6)
    assert 'spreads from the CPU' in quick.rows(entry('STViT', section='parity'))[1]['error']
    assert parity._apart([torch.tensor([0.0, torch.nan])], [torch.tensor([0.0, 1.0])]) == float('inf')
    assert 'KeyError' in quick.rows(entry('no such', section='parity'))[0]['error']


def test_operators_of_detectors(quick):
    pytest.importorskip('mmcv')
    for name in parity.OPERATORS:
        (row,) = quick.rows(entry(name, section='operators'))
        assert row['value'] == 0 and 'error' not in row


def test_kernels_by_their_names():
    for name, kind in (
        ('aten::_scaled_dot_product_flash_attention', 'flash'),
        ('void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128>>(flash::Flash_fwd_params)', 'flash'),
        ('fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention)', 'efficient'),
        ('cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3', 'cudnn'),
        ('aten::_scaled_dot_product_attention_math', 'math'),
        ('aten::linear', None),
    ):
        assert kind_of(name) == kind
    q = torch.randn(1, 1, 4, 8)
    assert text_of(attention_kernels(lambda: (q @ q.transpose(-2, -1)).softmax(-1) @ q)) == 'softmax'
    assert text_of(dict(efficient=11, flash=1)) == 'efficient 11, flash 1'


def test_every_network_of_the_suite_exists():
    """No name is first found wrong on a machine that is lent by the minute."""
    timm = pytest.importorskip('timm')
    keys = [wanted.key for wanted in gpu_entries()]
    assert len(set(keys)) == len(keys)
    specs = {
        name for wanted in gpu_entries() for name in wanted.networks if wanted.section not in ('parity', 'operators')
    }
    for spec in specs - set(BARE):
        name = spec.partition('+')[0]
        package, _, rest = name.partition(':')
        if package == 'timm':
            assert timm.is_model(rest), name
        elif package not in ('mmdet', 'mmaction'):
            assert find_config(name).is_file()
    assert {wanted.section for wanted in gpu_entries()} == set(SECTIONS)
    assert {wanted.section for wanted in entries(False, ['train'])} == {'train'}


def test_bare_backbones_are_of_the_size_of_their_peer():
    """The largest network beside the smallest says nothing of tokens."""
    groups = {wanted.networks for wanted in gpu_entries() if set(wanted.networks) <= set(BARE)}
    assert {name for names in groups for name in names} == set(BARE)
    for names in groups:
        with torch.device('meta'):
            backbones = [getattr(models, kind)(**options) for kind, options, _ in map(BARE.get, names)]
        dense, *reduced = (sum(p.numel() for p in backbone.parameters()) for backbone in backbones)
        assert all(abs(count / dense - 1) < 0.03 for count in reduced)


def test_weights_are_cast_where_asked():
    network = made('dense')
    job = Job(network, (3, 4, 8), 2, Timing(dtype='bfloat16', cast=True))
    job.run()
    assert network.model.project.weight.dtype == job.inputs.images.dtype == torch.bfloat16
    for wrong, line in (
        (dict(cast=True), 'weights are cast'),
        (dict(cast=True, dtype='bfloat16', train_step=True), 'weights are cast'),
        (dict(graph=True), 'a CUDA graph is of inference on a GPU'),
    ):
        with pytest.raises(UsageError, match=line):
            Timing(**wrong)


@pytest.mark.parametrize(
    'given,message',
    [
        (['--minutes', '0'], 'it must be above 0'),
        (['--json', 'suite.txt'], '--json suite.txt: name it *.json'),
        (['--page', 'page.txt'], 'name it *.md'),
        (['--only', 'everything'], "invalid choice: 'everything'"),
        (['--threads', '0', '--device', 'cpu'], 'at least 1'),
    ],
)
def test_options_out_of_range(given, message, capsys):
    with pytest.raises(SystemExit):
        main(given)
    assert message in capsys.readouterr().err


def test_the_command(quick, tmp_path, monkeypatch, capsys):
    out, text = tmp_path / 'suite.json', tmp_path / 'page.md'
    files = ['--json', str(out), '--page', str(text)]
    main(['--device', 'cpu', '--only', 'operators', '--minutes', '1', '--rounds', '2', *files])
    assert len(json.loads(out.read_text())['entries']) == len(parity.OPERATORS)
    assert '4 entries' in capsys.readouterr().out and '| nms |' in text.read_text()
    assert out.with_suffix('.csv').is_file()
