"""How good is it? Perplexity with its protocol, and closed-book recall."""

from lessonkit.evaluate.perplexity import Perplexity, perplexity
from lessonkit.evaluate.recall import Recall, recall

__all__ = [
    "Perplexity",
    "Recall",
    "perplexity",
    "recall",
]
