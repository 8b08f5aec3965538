"""The Python interface: models by name, by config or as built, in all toolboxes."""

from ..model_index import list_models
from .classifier import create_model
from .inference import infer, inference_model
from .models import get_model

__all__ = ['create_model', 'get_model', 'infer', 'inference_model', 'list_models']
