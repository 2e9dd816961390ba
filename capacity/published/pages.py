"""The pages that are modelled."""

from capacity.published import bitsandbytes, bloom, jetstream, starcoder2, torchcap
from capacity.published.model import PageModel
from capacity.published.rows import find_page

_ALL = (bloom.MODEL, bitsandbytes.MODEL, jetstream.MODEL, starcoder2.MODEL, torchcap.MODEL)
MODELS = {model.number: model for model in _ALL}


def find_model(name: str) -> PageModel:
    """By the page's number or name. UsageError names what there is."""
    return MODELS[find_page(name).number]
