"""A name becomes a model, a tokenizer, a text."""

from lessonkit.models.calibration_sources import find_calibration
from lessonkit.models.decoding import Continuation
from lessonkit.models.folder import read_model_folder
from lessonkit.models.loading import load
from lessonkit.models.names import find_adapter, find_model, resolve
from lessonkit.models.questions import Question, questions
from lessonkit.models.size import Description, describe, is_small
from lessonkit.models.texts import Split, Text, calibration_text, evaluation_text, text_for
from lessonkit.models.tokenizer import load_tokenizer

__all__ = [
    "Continuation",
    "Description",
    "Question",
    "Split",
    "Text",
    "calibration_text",
    "describe",
    "evaluation_text",
    "find_calibration",
    "find_adapter",
    "find_model",
    "is_small",
    "load",
    "load_tokenizer",
    "questions",
    "read_model_folder",
    "resolve",
    "text_for",
]
