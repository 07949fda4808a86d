"""lessonkit: what LLM weights are made of, and how they change form."""

__version__ = "0.1.0"
