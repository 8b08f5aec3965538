"""The site of documentation: ``make docs`` builds it without a warning, and what its pages link to is there."""

import os
import re
import shlex
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from mmengine.registry import Registry
from run_helpers import CONFIGS, ROOT

from mmstvit import registry

pytest.importorskip('sphinx')
from sphinx.cmd.build import main as sphinx_build


class Page(HTMLParser):
    """The addresses that a page refers to, and the names that it can be entered by."""

    def __init__(self, text):
        super().__init__()
        self.links, self.names, self.missing_alt = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.names |= {attrs[key] for key in ('id', 'name') if attrs.get(key)}
        self.links += [attrs[key] for key in ('href', 'src') if attrs.get(key)]
        if tag == 'img' and not attrs.get('alt'):
            self.missing_alt.append(attrs.get('src'))


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The pages that the line of the Makefile builds, by their path; a warning fails the build."""
    out = tmp_path_factory.mktemp('site')
    lines = subprocess.run(['make', '-n', 'docs'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    _, args = re.search(r'-m (sphinx) (.*)', lines).groups()
    args = [str(out) if word == 'docs/_build/html' else word for word in shlex.split(args)]
    assert str(out) in args and '-W' in args
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert sphinx_build(args) == 0, 'the site has warnings, see above'
    pages = {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob('*.html')}
    return out, {name: (text, Page(text)) for name, text in pages.items()}


def test_links_inside_the_site_lead_somewhere(site):
    out, pages = site
    broken, checked = [], 0
    for name, (_, page) in pages.items():
        for link in page.links:
            target = urlsplit(link)
            if target.scheme or target.netloc:
                continue
            checked += 1
            path = os.path.normpath(os.path.join(os.path.dirname(name), unquote(target.path))) if target.path else name
            there = (out / path).is_file()
            if there and target.fragment and path in pages:
                there = unquote(target.fragment) in pages[path][1].names
            if not there:
                broken.append((name, link))
    assert not broken
    assert checked > 1000


def test_the_search_knows_what_users_look_for(site):
    out, pages = site
    index = (out / 'searchindex.js').read_text()
    for stem in ('"confus"', '"checkpoint"', '"onnx"'):
        assert stem in index
    assert all('copybutton.js' in text for name, (text, _) in pages.items() if name == 'get_started.html')


def test_every_picture_says_what_it_shows(site):
    assert not [(name, picture) for name, (_, page) in site[1].items() for picture in page.missing_alt]


def test_the_zoo_has_every_config_and_the_figures_of_the_metafiles(site):
    text = site[1]['model_zoo.html'][0]
    rows = {re.sub(r'<[^>]+>', ' ', row) for row in re.findall(r'<tr.*?</tr>', text, re.DOTALL)}
    models = {}
    for path in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        models |= {model['Name']: model for model in yaml.safe_load((ROOT / path).read_text())['Models']}
    assert {model['Config'] for model in models.values()} == set(CONFIGS)
    for name, model in models.items():
        (row,) = [row for row in rows if name in row.split()]
        for result in model['Results']:
            for metric, value in result['Metrics'].items():
                assert f'{metric} {value}' in row
        assert f'{model["Metadata"]["Parameters"] / 1e6:.1f} M' in row


def test_the_reference_has_every_name_that_a_config_can_use(site):
    ours = [r for r in vars(registry).values() if isinstance(r, Registry) and r.scope == 'mmstvit']
    for each in ours:
        each.import_from_location()
    names = {name for each in ours for name in each.module_dict}
    documented = {
        anchor.split('.')[-1] for path, (_, page) in site[1].items() if 'api/' in path for anchor in page.names
    }
    assert len(names) > 10 and not names - documented


def test_links_to_files_of_the_repository_lead_somewhere():
    """Of the READMEs and the other pages that are read in the repository itself."""
    files = [*ROOT.glob('*.md'), *ROOT.glob('configs/*/*.md'), *ROOT.glob('docs/**/*.md')]
    broken = []
    for file in files:
        text = re.sub(r'```.*?```', '', file.read_text(), flags=re.DOTALL)
        for link in re.findall(r'\]\(([^()\s]+)\)', text):
            target = urlsplit(link)
            if not target.scheme and target.path and not (file.parent / unquote(target.path)).exists():
                broken.append((file.relative_to(ROOT).as_posix(), link))
    assert not broken
    assert len(files) > 20
