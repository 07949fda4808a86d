"""Use a model: let it write, and talk with it."""

from lessonkit.run.adapted import with_adapter
from lessonkit.run.chat import Chat, talk
from lessonkit.run.generate import Sampling, complete, stream
from lessonkit.run.templates import TEMPLATES, Template, find_template, template_warning

__all__ = [
    "TEMPLATES",
    "Chat",
    "Sampling",
    "Template",
    "complete",
    "find_template",
    "stream",
    "talk",
    "template_warning",
    "with_adapter",
]
