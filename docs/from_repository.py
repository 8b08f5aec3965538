"""What the site takes from files of the repository when it is built, so that no fact stands in two places."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
FAMILIES = sorted(path.parent.name for path in (ROOT / 'configs').glob('*/README.md'))


def text_of(path: str, page: str, after: str | None = None, before: str | None = None) -> str:
    """A Markdown file of the repository, or a part of it, with links as they are right on a page of the site.

    Args:
        path: of the file, below the repository.
        page: of the site, below ``docs``.
        after: the line behind which the part begins, by default the first heading.
        before: the line before which it ends, by default the end.

    Raises:
        ValueError: one of the lines is not there.
    """
    lines = (ROOT / path).read_text(encoding='utf-8').splitlines()
    for line in filter(None, (after, before)):
        if line not in lines:
            raise ValueError(f'{path} has no line {line!r}, which docs/{page} is cut by')
    start = 1 + (lines.index(after) if after else next(i for i, line in enumerate(lines) if line.startswith('# ')))
    part = lines[start : lines.index(before) if before else None]
    folder = (DOCS / page).parent

    def link(match: re.Match) -> str:
        target, _, anchor = match[1].partition('#')
        if '://' in target or not target:
            return match[0]
        goal = Path(os.path.normpath((ROOT / path).parent / target))
        # The families' READMEs are pages.
        if goal.name == 'README.md' and goal.parent.name in FAMILIES:
            goal = DOCS / 'configs' / f'{goal.parent.name}.md'
        return f']({os.path.relpath(goal, folder)}{f"#{anchor}" if anchor else ""})'

    return re.sub(r'\]\(([^()\s]+)\)', link, '\n'.join(part))


def model_zoo() -> str:
    """Tables of all models, made of the metafiles that ``model-index.yml`` names."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text(encoding='utf-8'))
    return '\n'.join(line for path in index['Import'] for line in _family(path))


def _family(path: str) -> Iterator[str]:
    content = yaml.safe_load((ROOT / path).read_text(encoding='utf-8'))
    for collection in content['Collections']:
        yield f'## {collection["Name"]}\n'
        paper = collection.get('Paper')
        if paper:
            yield f'[{paper["Title"]}]({paper["URL"]}). '
        yield f'Recipes and notes: [{Path(path).parent.name}](configs/{Path(path).parent.name}.md).\n'
        models = [model for model in content['Models'] if model['In Collection'] == collection['Name']]
        for dataset in dict.fromkeys(model['Results'][0]['Dataset'] for model in models):
            yield f'### {dataset}\n'
            yield from _table([_row(model) for model in models if model['Results'][0]['Dataset'] == dataset])
            yield ''


def _row(model: dict) -> dict[str, str]:
    """A model's line by its columns; a detector has two results, of boxes and of masks."""
    meta, weights = model['Metadata'], model.get('Weights')
    metrics = [f'{name} {value}' for result in model['Results'] for name, value in result['Metrics'].items()]
    return {
        'config': f'[{model["Name"]}](../{model["Config"]})',
        'parameters': _count(meta.get('Parameters')),
        'multiply-adds': _count(meta.get('FLOPs')),
        'results': ', '.join(metrics),
        'weights': f'[file]({weights})' if weights else '',
    }


def _table(rows: list[dict[str, str]]) -> Iterator[str]:
    """Markdown, without columns in which nothing stands."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    yield f'| {" | ".join(columns)} |'
    yield '|---' * len(columns) + '|'
    for row in rows:
        yield f'| {" | ".join(row[name] for name in columns)} |'


def _count(number: int | None) -> str:
    if number is None:
        return ''
    return f'{number / 1e9:.2f} G' if number >= 1e9 else f'{number / 1e6:.1f} M'
