"""A page in the browser to try models on: ``mmstvit-demo`` or ``mmstvit demo``."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..compat.requires import require
from ..console import readable
from ..errors import UsageError, one_line
from .models import ROUNDS, Cost, DemoModel, trained_models
from .samples import Sample, samples_for

_LARGEST = '500mb'  # of an upload
_NONE = (
    'No trained model was found in `{}`. `make demo` trains one on handwritten digits in about two minutes '
    '(`make demo-det` a detector, `make demo-seg` a segmentor, `make demo-video` one for clips); load this page again '
    'then. `mmstvit demo --model CONFIG --checkpoint FILE` offers one of your own.'
)
_INTRO = """# mmstvit
A vision transformer that goes on with a few *semantic tokens* in place of all image tokens. Choose a model, then a \
sample or a file of yours: see what the model predicts, which part of the input each token stands for, and what it \
costs beside its dense baseline, the same network with all its tokens. A plain vision transformer can be given fewer \
tokens here, without training: choose how."""
_SAMPLES = 'Held-out samples, with what is in them: click one'
_TOKENS = '### What each semantic token stands for'
_GROUPS = '### Which patches became one token, and which were dropped'
_NO_TOKENS = 'This model has no semantic tokens, so there is no map of them and no dense baseline to compare it with.'
_ALL = 'none: all tokens'
_CSS = """
#message { color: #b91c1c; border: 1px solid #fca5a5; border-radius: 6px; padding: 8px 12px; background: #fef2f2 }
#costs table { width: 100% }
#costs table, #costs tr { border: none }
#costs td, #costs th { border: solid #d4d4d8; border-width: 1px 0; padding: 6px 10px }
#costs td + td, #costs th + th { text-align: right }
#samples .grid-wrap { height: auto; min-height: 0; max-height: none; overflow: visible }
#samples .grid-container { grid-template: none / repeat(var(--grid-cols), minmax(0, 1fr)) !important }
#samples .grid-container { grid-auto-rows: auto }
#samples .caption-label { padding: 1px 6px; font-size: 11px }
#samples .thumbnail-item { aspect-ratio: auto; height: auto }
"""


class Offer:
    """The models on offer and their samples.

    Args:
        work_dirs: where trained models are looked for.
        device: where they run.
        trust: whether code in their checkpoints may run.
        folder: where the files of samples go.
        own: a model that is offered too, first.
    """

    def __init__(self, work_dirs: Path, device: str, trust: bool, folder: Path, own: DemoModel | None = None) -> None:
        self.work_dirs, self.device, self.trust, self.folder, self.own = work_dirs, device, trust, folder, own
        self.models: dict[str, DemoModel] = {}
        self._samples: dict[str, list[Sample]] = {}

    def look(self) -> list[str]:
        """Look for models; returns the names of all. Those that are as before stay loaded."""
        known = {(model.name, model.weights): model for model in self.models.values()}
        models, faults = trained_models(self.work_dirs, self.device, self.trust)
        for line in faults:
            print(f'left out: {line}')
        models = [self.own, *models] if self.own else models
        self.models = {model.name: known.get((model.name, model.weights), model) for model in models}
        return list(self.models)

    def samples(self, name: str) -> list[Sample]:
        """Return the built-in inputs for a model."""
        if name not in self._samples:
            model = self.models[name]
            self._samples[name] = samples_for(model.scope, model.classes, self.folder / model.scope)
        return self._samples[name]


def cost_table(costs: Sequence[Cost], model: DemoModel) -> str:
    """Format what an input costs a network and its dense baseline, as Markdown."""
    names = ['this model', 'dense baseline', 'share'] if len(costs) > 1 else ['this model']
    lines = [f'| | {" | ".join(names)} |', '|---' * (1 + len(names)) + '|']
    rows: list[Any] = [
        ('multiply-adds', readable, [cost.multiply_adds for cost in costs]),
        ('of them in the backbone', readable, [cost.backbone for cost in costs]),
        ('parameters', readable, [cost.parameters for cost in costs]),
    ]
    for batch in costs[0].milliseconds:
        name = f'time of {batch} inputs' if batch > 1 else 'time of one input'
        rows.append((name, '{:.1f} ms'.format, [cost.milliseconds[batch] for cost in costs]))
    for name, unit, values in rows:
        if values[0] is not None:
            cells = [*map(unit, values), *([f'{values[0] / values[1]:.0%}'] if len(costs) > 1 else [])]
            lines.append(f'| {name} | {" | ".join(cells)} |')
    threads = torch.get_num_threads()
    where = model.device if model.device != 'cpu' else f'{threads} CPU thread{"s" if threads > 1 else ""}'
    turns = 'in turn with its baseline, ' if len(costs) > 1 else ''
    lines += ['', f'Inputs of {model.input_size}. Time is the median of {ROUNDS} runs, {turns}on {where}.']
    if len(costs) > 1:
        lines[-1] += ' The baseline is untrained here, which changes neither cost nor time.'
    return '\n'.join(lines)


class Page:
    """Callbacks of the page; each returns values or updates of Gradio's components.

    Args:
        offer: the models.
    """

    def __init__(self, offer: Offer) -> None:
        import gradio

        self.gr, self.offer = gradio, offer
        # Held while a model runs. Whoever ends the process takes it first: Python would end the thread in PyTorch's
        # midst, and with it the process by SIGABRT.
        self.running = threading.Lock()

    def results(
        self, label: Any = None, image: Any = None, tokens: Any = None, costs: str = '', note: str = '', fault: str = ''
    ) -> list:
        """Return updates of the message and the results, by default none."""
        gr = self.gr
        pictures = [gr.Image(picture, visible=picture is not None) for picture in (image, tokens)]
        return [gr.Markdown(fault, visible=bool(fault)), label, *pictures, costs, note]

    def look(self, chosen: str | None) -> list:
        """Offer the models there are now, as the page is loaded, or show how to train one."""
        names = self.offer.look()
        chosen = chosen if chosen in names else next(iter(names), None)
        missing = _NONE.format(self.offer.work_dirs)
        return [self.gr.Dropdown(names, value=chosen), self.gr.Markdown(missing, visible=not names)]

    def choose(self, name: str | None) -> list:
        """Change the model: show its samples, and no results."""
        samples, results = [], self.results()
        if name:
            try:
                samples = self.offer.samples(name)
            except (UsageError, ImportError) as error:
                results = self.results(fault=one_line(error))
        takes = self.offer.models[name].takes if name else 'image'
        gallery = self.gr.Gallery(
            [(sample.thumb, sample.truth) for sample in samples],
            columns=2 if takes == 'clip' else 5 if len(samples) > 6 else 3,
            selected_index=None,
            visible=bool(samples),
        )
        hint = self.gr.Markdown(_SAMPLES, visible=bool(samples))
        return [hint, gallery, self.gr.File(label=f'Or your own {takes}'), *results]

    def controls(self, name: str | None) -> list:
        """Offer the methods of token reduction for a model, where there are any."""
        methods: tuple[str, ...] = ()
        with contextlib.suppress(UsageError, ImportError):  # choose() tells it
            methods = self.offer.models[name].methods if name else ()
        return [
            self.gr.Dropdown([_ALL, *methods], value=_ALL, visible=bool(methods)),
            self.gr.Slider(visible=bool(methods)),
        ]

    def predict(
        self, name: str | None, path: str | None, method: str | None = None, budget: float = 1.0
    ) -> Iterator[list]:
        """Yield the results of a file, first without and then with the time.

        Args:
            name: of the model.
            path: the file.
            method: of token reduction.
            budget: the share of the multiply-adds that may be left.
        """
        try:
            if not name:
                raise UsageError('There is no model yet')
            model = self.offer.models[name]
            if path is None:
                raise UsageError(f'Choose a sample or a file of yours: this model takes {model.takes}s')
            with self.running:
                model.reduce(method if method in model.methods else None, budget)
                answer = model.answer(path)
        except (UsageError, ImportError) as error:
            yield self.results(fault=one_line(error))
            return
        note = _GROUPS if model.reduction else _TOKENS if model.has_tokens else _NO_TOKENS
        yield self.results(answer.classes, answer.drawing, answer.tokens, '*measuring ...*', note)
        *unchanged, _, _ = [self.gr.skip()] * 6
        with self.running:
            costs = model.costs()
        yield [*unchanged, cost_table(costs, model), note]

    def blocks(self) -> Any:
        """Build the page."""
        gr = self.gr
        with gr.Blocks(title='mmstvit', analytics_enabled=False) as blocks:
            gr.Markdown(_INTRO)
            missing = gr.Markdown(visible=False, elem_id='missing')
            with gr.Row():
                with gr.Column(scale=2):
                    model = gr.Dropdown(label='Model', elem_id='model')
                    hint = gr.Markdown(visible=False)
                    gallery = gr.Gallery(
                        show_label=False,
                        allow_preview=False,
                        object_fit='contain',
                        height='auto',
                        interactive=False,
                        buttons=[],
                        visible=False,
                        elem_id='samples',
                    )
                    file = gr.File(label='Or your own image', height=120, elem_id='file')
                    method = gr.Dropdown([_ALL], value=_ALL, label='Token reduction', visible=False, elem_id='method')
                    budget = gr.Slider(
                        0.3, 1, 0.5, step=0.05, label='Share of the multiply-adds', visible=False, elem_id='budget'
                    )
                    button = gr.Button('Predict', variant='primary', elem_id='predict')
                with gr.Column(scale=3):
                    message = gr.Markdown(visible=False, elem_id='message')
                    with gr.Row():
                        drawing = gr.Image(show_label=False, visible=False, buttons=[], elem_id='drawn')
                        label = gr.Label(label='Prediction', elem_id='prediction')
                    costs = gr.Markdown(elem_id='costs')
            note = gr.Markdown(elem_id='note')
            tokens = gr.Image(show_label=False, visible=False, buttons=['fullscreen', 'download'], elem_id='tokens')
            results = [message, label, drawing, tokens, costs, note]

            def take(name: str, event: gr.SelectData) -> str:  # type: ignore[name-defined]
                return str(self.offer.samples(name)[event.index].path)

            once = dict(concurrency_id='model', concurrency_limit=1)  # what is timed runs alone
            blocks.load(self.look, model, [model, missing])
            asked = [model, file, method, budget]
            model.change(self.choose, model, [hint, gallery, file, *results], **once)
            model.change(self.controls, model, [method, budget], **once)
            gallery.select(take, model, file).then(self.predict, asked, results, **once)
            button.click(self.predict, asked, results, **once)
            for change in (method.input, budget.release):
                change(self.predict, asked, results, **once)
        return blocks

    def launch(self, host: str, port: int | None, inbrowser: bool = False) -> Any:
        """Serve the page, and return Gradio's ``Blocks``; its ``local_url`` is where, ``close()`` ends it."""
        blocks = self.blocks()
        blocks.launch(
            server_name=host,
            server_port=port,
            inbrowser=inbrowser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=_LARGEST,
            footer_links=[],
            theme=self.gr.themes.Default(primary_hue='blue'),  # its fonts come with Gradio
            css=_CSS,
        )
        return blocks


def prepare_gradio(folder: str) -> None:
    """Set what Gradio reads as it is imported.

    Args:
        folder: for all files that it writes.

    Raises:
        ImportError: it is not installed; the text says how to get it.
    """
    os.environ.update(GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED='False')
    # It asks its own server whether it is there, which no proxy should answer.
    os.environ['no_proxy'] = ','.join(filter(None, [os.environ.get('no_proxy'), '127.0.0.1', 'localhost']))
    require('gradio', 'demo', 'the demo page')
