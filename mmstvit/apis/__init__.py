"""The Python interface: models by name, by config or as built, in all three toolboxes."""

from .models import get_model, inference_model, inference_stream, list_models

__all__ = ['get_model', 'inference_model', 'inference_stream', 'list_models']
