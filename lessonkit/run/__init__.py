"""Use a model: let it write, talk with it, serve it."""

from lessonkit.run.adapted import with_adapter
from lessonkit.run.chat import Chat, talk
from lessonkit.run.generate import Sampling, complete, stream
from lessonkit.run.serve import Served, serving
from lessonkit.run.templates import (
    TEMPLATES,
    Template,
    as_jinja,
    find_template,
    template_warning,
)

__all__ = [
    "TEMPLATES",
    "Chat",
    "Sampling",
    "Served",
    "Template",
    "as_jinja",
    "complete",
    "find_template",
    "serving",
    "stream",
    "talk",
    "template_warning",
    "with_adapter",
]
