"""What README.md repeats of other pages is what they say."""

import re
from pathlib import Path

import yaml

from mmstvit import __version__

ROOT = Path(__file__).parents[2]


def rows_of(page: str) -> dict[str, list[str]]:
    """The cells of table rows that begin with a link to a config, by its name: of the first table that has it."""
    lines = (ROOT / page).read_text().splitlines()
    named = [(re.match(r'\| \[([\w-]+)\]\(\S*configs/', line), line) for line in lines]
    return {match[1]: [cell.strip() for cell in line.split('|')[2:-1]] for match, line in reversed(named) if match}


def test_results_are_those_of_the_evidence():
    evidence, found = rows_of('docs/evidence.md'), 0
    for name, cells in rows_of('README.md').items():
        if name in evidence:
            for cell, value in zip(cells[1:], evidence[name], strict=False):
                assert value.strip('*').startswith(cell)
            found += 1
    assert found >= 4


def test_the_claims_are_counted_as_in_the_evidence():
    page = re.search(r'Of (\d+) claims.*', (ROOT / 'docs/evidence.md').read_text())[0]
    (readme,) = re.findall(r'of \d+, \d+ held here[^.]*', (ROOT / 'README.md').read_text())
    assert re.findall(r'\d+', readme) == re.findall(r'\d+', page)


def test_the_version_to_cite_is_this_one():
    assert yaml.safe_load((ROOT / 'CITATION.cff').read_text())['version'] == __version__
