"""Segmentation backbones that think before they spend.

Importing this package registers its modules with mmengine and mmseg.
"""

__version__ = "0.1.0"

import io
import warnings
from contextlib import redirect_stdout

from .utils.threads import set_thread_defaults
from .utils.versions import check_versions

try:
    check_versions()
    set_thread_defaults()  # torch reads them once, when it is imported
    with warnings.catch_warnings():
        # no compiled operator is needed here
        warnings.filterwarnings("ignore", message=".*MultiScaleDeformableAttention")
        import mmcv  # noqa: F401
        import mmengine  # noqa: F401

        with redirect_stdout(io.StringIO()):  # "Could not import OneDL", an optional dataset
            import mmseg.datasets
            import mmseg.models  # noqa: F401
    # of mmseg's visualization hook, which every config has but which draws only on request
    warnings.filterwarnings("ignore", message="The draw is False", category=UserWarning)
except ImportError as error:
    _message = (
        f"tvit_seg does not work in this environment: {error}. In a new one run, in the checkout, "
        "pip install '.[onedl]' (current PyTorch, nothing to compile) or '.[openmmlab]' "
        "(OpenMMLab's originals). Never install one over the other."
    )
    # mmengine swallows the error if only a config names tvit_seg
    warnings.warn(_message, stacklevel=2)
    raise ImportError(_message) from error

from . import datasets, engine, evaluation, visualization  # noqa: F401, registers them
from .cost import stage_macs, stage_parameters
from .hub import from_pretrained
from .inference import Predictor
from .models import timm_models  # noqa: F401, registers them
from .models.backbones import ThinkingSwin, ThinkingViT
from .models.classifiers import ThinkingClassifier
from .models.gates import BudgetGate, EntropyGate, FixedGate, Gate, PixelEntropyGate, RandomGate
from .models.pruning import DynamicPruning, UncertaintyPruning
from .models.segmentors import ThinkingEncoderDecoder, ThinkingTTAModel
from .thinking import StageOutput, Thought
from .utils import aliases
from .weights.convert import convert_state_dict

aliases.install()

__all__ = [
    "BudgetGate",
    "DynamicPruning",
    "EntropyGate",
    "FixedGate",
    "Gate",
    "PixelEntropyGate",
    "Predictor",
    "RandomGate",
    "StageOutput",
    "ThinkingClassifier",
    "ThinkingEncoderDecoder",
    "ThinkingSwin",
    "ThinkingTTAModel",
    "ThinkingViT",
    "Thought",
    "UncertaintyPruning",
    "convert_state_dict",
    "from_pretrained",
    "stage_macs",
    "stage_parameters",
]
