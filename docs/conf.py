"""The site of documentation: ``make docs`` builds it into docs/_build/html."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from from_repository import FAMILIES, model_zoo, text_of  # noqa: E402

from mmstvit import __version__  # noqa: E402

project = 'mmstvit'
author = 'The mmstvit authors'
release = version = __version__
copyright = author

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode', 'sphinx_copybutton']
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'mmstvit {release}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_copy_source = False
copybutton_prompt_text = '$ '

myst_enable_extensions = ['substitution']
myst_heading_anchors = 3
myst_substitutions = {
    'model_zoo': model_zoo(),
    'security': text_of('SECURITY.md', 'security.md'),
    'install': text_of('README.md', 'get_started.md', '## Install', '## Faster on the weights you have'),
    'speed': text_of(
        'README.md',
        'speed.md',
        '## Speed',
        'Batches gain nearly what the multiply-adds allow; one image leaves too few rows to keep a processor busy.',
    ),
    'idea': text_of(
        'README.md',
        'index.md',
        '**Faster vision transformers by fewer tokens, in mmpretrain, mmdet, mmseg, mmaction2, timm and Hugging Face**',
        '## Install',
    ),
    **{family: text_of(f'configs/{family}/README.md', f'configs/{family}.md') for family in FAMILIES},
}

# With it some links of the source pages would lead to places that are not there.
viewcode_follow_imported_members = False
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# A reference that leads nowhere is a warning, but for those to other packages, whose sites are elsewhere.
nitpicky = True
nitpick_ignore_regex = [('py:.*', r'(torch|numpy|mmengine|rich|os|pathlib|collections)\..*')]


def prepare_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Before napoleon reads a docstring: shapes as code, and no words before a colon taken for a type.

    A shape such as (B, *grid, C) that is not set as code would begin emphasis at its star. Types stand in annotations
    here; napoleon looks for them before a colon in the first line of ``Returns`` and of a property, and finds none
    before one that is put in front.
    """
    previous = 'Returns:' if what == 'property' else ''
    for i, line in enumerate(lines):
        lines[i] = re.sub(r'(?<!`)\([^()`]*\*\w[^()`]*\)(?!`)', r'``\g<0>``', line)
        if previous in ('Returns:', 'Yields:'):
            lines[i] = re.sub(r'^(\s*)', r'\1: ', lines[i])
        previous = line.strip()


def skip_fields(app, what, name, obj, skip, options) -> bool | None:
    """Leave out what Python says of the fields of a named tuple: they stand among its attributes."""
    return True if str(getattr(obj, '__doc__', '')).startswith('Alias for field number') else None


def setup(app) -> None:
    """Called by Sphinx; napoleon's priority is 500."""
    app.connect('autodoc-process-docstring', prepare_docstring, priority=400)
    app.connect('autodoc-skip-member', skip_fields, priority=400)
