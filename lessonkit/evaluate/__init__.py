"""How good is it? Perplexity by its protocol, divergence, recall; and is a difference real?"""

from lessonkit.evaluate.calibration import best_temperature
from lessonkit.evaluate.divergence import Divergence, divergence, divergences
from lessonkit.evaluate.documents import detokenize
from lessonkit.evaluate.kl_base import divergence_from_base, read_kl_base, write_kl_base
from lessonkit.evaluate.margins import RELIABLE, Margin, continuation_margins
from lessonkit.evaluate.paired import Difference, Flips, compare, holm, mcnemar
from lessonkit.evaluate.perplexity import Perplexity, perplexities, perplexity, token_losses
from lessonkit.evaluate.processes import joined
from lessonkit.evaluate.protocols import PROTOCOLS, Protocol, gptq, sliding
from lessonkit.evaluate.recall import Recall, recall

__all__ = [
    "Difference",
    "Divergence",
    "Flips",
    "Margin",
    "PROTOCOLS",
    "Perplexity",
    "Protocol",
    "RELIABLE",
    "Recall",
    "best_temperature",
    "compare",
    "continuation_margins",
    "detokenize",
    "divergence",
    "divergence_from_base",
    "divergences",
    "gptq",
    "holm",
    "joined",
    "mcnemar",
    "perplexities",
    "perplexity",
    "read_kl_base",
    "recall",
    "sliding",
    "token_losses",
    "write_kl_base",
]
