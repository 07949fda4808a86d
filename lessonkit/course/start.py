"""`begin`, the first call of every lesson: quiet libraries, fixed seeds, one plot style."""

from __future__ import annotations

import logging
import os
import random
import warnings

import numpy as np

import lessonkit

# Read by the libraries when they are imported. What the user has set wins.
_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",  # or every fork of a kernel prints a warning
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "LOGBAR_ANIMATION": "0",  # gptqmodel's bars; in a notebook they would come now and then
    "LOGBAR_DISABLE_NOTEBOOK_DETECTION": "1",  # its messages then go to stdout, like others
}
_TALKATIVE = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "gptqmodel",
    "huggingface_hub",
    "optimum",
    "peft",
    "torch.utils._pytree",
    "torchao",  # warns of what it cannot load, whether anybody uses it or not
    "tqdm",
    "transformers",
)


def begin(number: int = 0) -> None:
    """Make a lesson ready: quiet libraries, all random numbers from `number`, one plot style.

    Hub settings stay as they are, and so does the number of threads: torch takes OMP_NUM_THREADS
    where it is set. Another number of threads can change the last bits of a sum, which the rounded
    figures of the lessons do not show.
    """
    quiet()
    seed(number)
    from lessonkit.course.plots.style import use_style

    use_style()
    print(f"lessonkit {lessonkit.__version__} is ready.")


def seed(number: int) -> None:
    """Start the random numbers of Python, numpy and torch from `number`."""
    import torch

    random.seed(number)
    np.random.seed(number)  # noqa: NPY002  for libraries that draw from numpy's global generator
    torch.manual_seed(number)


def quiet() -> None:
    """Keep advice, warnings and progress bars of the libraries out of the lesson.

    Errors still show. Downloads keep their bars: they can take minutes.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=rf"{library}(\.|$)")

    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    downloads_had_bars = not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()  # the bar of loading weights, and the hub's too
    if downloads_had_bars:
        enable_progress_bars()
