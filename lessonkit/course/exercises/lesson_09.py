"""Exercises of lesson 09: the cache's size, the penalty on repetition, what may be shown."""

from __future__ import annotations

from lessonkit.course.exercises.attempts import Exercise, Mistake


def cache_bytes(layers: int, kv_heads: int, head_dim: int, tokens: int, bits: float) -> float:
    """Bytes of the keys and values of a text."""
    return 2 * layers * kv_heads * head_dim * tokens * bits / 8


def penalised(scores: list[float], seen: set[int], penalty: float) -> list[float]:
    """Scores, with those of the tokens in `seen` made less likely."""
    return [
        (score / penalty if score > 0 else score * penalty) if token in seen else score
        for token, score in enumerate(scores)
    ]


def showable(text: str, stop: str) -> str:
    """What of a text that is still being written may be shown."""
    if stop in text:
        return text[: text.index(stop)]
    held = max((n for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
    return text[: len(text) - held]


def _caches() -> list[tuple[int, int, int, int, float]]:
    return [
        (5, 2, 64, 512, 16),  # mini
        (22, 4, 64, 2048, 16),  # TinyLlama
        (32, 32, 128, 4096, 16),  # Llama 2 7B
        (32, 8, 128, 8192, 8.5),  # Llama 3 8B, q8_0
        (1, 1, 32, 1, 4.5),
    ]


def _scores() -> list[tuple[list[float], set[int], float]]:
    return [
        ([2.0, 1.0, -1.0, -4.0], {0, 2}, 2.0),
        ([3.0, 2.5], set(), 1.5),
        ([0.0, 0.5, -0.5], {0, 1, 2}, 1.25),
        ([1.0, 2.0, 3.0], {1}, 1.0),
    ]


def _texts() -> list[tuple[str, str]]:
    return [
        ("The end.\n\n### Instruction: more", "### Instruction:"),
        ("The end.\n\n###", "### Instruction:"),
        ("One # and two ## then #", "###"),
        ("One ##", "###"),
        ("nothing to hold", "</s>"),
        ("a < b <", "</s>"),
        ("### That is all: no more steps", "stop"),
        ("nearly at the top", "stop"),
        ("aab", "aabb"),
        ("", "###"),
    ]


def _keys_alone(layers: int, kv_heads: int, head_dim: int, tokens: int, bits: float) -> float:
    return cache_bytes(layers, kv_heads, head_dim, tokens, bits) / 2


def _bits_for_bytes(layers: int, kv_heads: int, head_dim: int, tokens: int, bits: float) -> float:
    return cache_bytes(layers, kv_heads, head_dim, tokens, bits) * 8


def _whole_bits(layers: int, kv_heads: int, head_dim: int, tokens: int, bits: float) -> float:
    return cache_bytes(layers, kv_heads, head_dim, tokens, int(bits))


def _one_layer(layers: int, kv_heads: int, head_dim: int, tokens: int, bits: float) -> float:
    return cache_bytes(1, kv_heads, head_dim, tokens, bits)


def _always_divided(scores: list[float], seen: set[int], penalty: float) -> list[float]:
    return [s / penalty if token in seen else s for token, s in enumerate(scores)]


def _subtracted(scores: list[float], seen: set[int], penalty: float) -> list[float]:
    return [s - penalty if token in seen else s for token, s in enumerate(scores)]


def _all_tokens(scores: list[float], seen: set[int], penalty: float) -> list[float]:
    return penalised(scores, set(range(len(scores))), penalty)


def _shown_at_once(text: str, stop: str) -> str:
    return text.split(stop)[0]


def _stop_shown_too(text: str, stop: str) -> str:
    return text[: text.index(stop) + len(stop)] if stop in text else showable(text, stop)


def _first_letter_only(text: str, stop: str) -> str:
    if stop in text:
        return showable(text, stop)
    return text[:-1] if text.endswith(stop[0]) else text


def _any_of_its_letters(text: str, stop: str) -> str:
    return text.split(stop)[0].rstrip(stop)


def _as_long_as_the_stop(text: str, stop: str) -> str:
    if stop in text:
        return showable(text, stop)
    return text[: max(0, len(text) - len(stop) + 1)]


EXERCISES = [
    Exercise(
        name="cache_bytes",
        prompt=(
            "Write cache_bytes(layers, kv_heads, head_dim, tokens, bits): the bytes of the keys "
            "and values of so many tokens, stored in `bits` bits each."
        ),
        reference=cache_bytes,
        make_cases=_caches,
        hint="A key and a value for each token, in each layer, for each key/value head.",
        nudge="What is kept for one token, in one layer, for one head? Is it one thing or two?",
        mistakes=(
            Mistake(_keys_alone, "Half of it: the values are stored as well as the keys."),
            Mistake(_bits_for_bytes, "Eight times too much: a byte has 8 bits."),
            Mistake(_whole_bits, "8.5 bits are 8.5: a scale for each block is part of them."),
            Mistake(_one_layer, "Every layer has keys and values of its own."),
        ),
    ),
    Exercise(
        name="penalised",
        prompt=(
            "Write penalised(scores, seen, penalty): return the scores as a list, those of the "
            "tokens in the set `seen` made less likely by the repetition penalty."
        ),
        reference=penalised,
        make_cases=_scores,
        hint="Divide a positive score by the penalty, multiply a negative one with it.",
        nudge="What does dividing do to a score below zero?",
        mistakes=(
            Mistake(
                _always_divided,
                "A negative score that is divided comes nearer to zero: more likely, not less.",
            ),
            Mistake(_subtracted, "The penalty is a factor; it is not subtracted."),
            Mistake(_all_tokens, "Only tokens that the text holds already are penalised."),
        ),
    ),
    Exercise(
        name="showable",
        prompt=(
            "Write showable(text, stop): `text` is what a model has written so far. Return what of "
            "it may be shown: nothing of the stop string, and no end that it could begin with."
        ),
        reference=showable,
        make_cases=_texts,
        hint=(
            "If stop is in text, cut before it. Else find the longest n with "
            "text.endswith(stop[:n]), and leave those n letters out."
        ),
        nudge="Two cases: the stop string is there already, or the text ends in its beginning.",
        mistakes=(
            Mistake(
                _shown_at_once,
                "A text that ends with the beginning of the stop shows a piece of it.",
            ),
            Mistake(_stop_shown_too, "The stop string itself is not shown."),
            Mistake(
                _first_letter_only,
                "You looked for the stop's first letter. More of it may be there already.",
            ),
            Mistake(
                _any_of_its_letters,
                "rstrip takes away the stop's letters in any order. Only what the stop begins with "
                "is held back.",
            ),
            Mistake(
                _as_long_as_the_stop,
                "You hold back too much: only what the stop really begins with.",
            ),
        ),
    ),
]
