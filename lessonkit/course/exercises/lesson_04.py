"""Exercises of lesson 04: a merge by hand, the size of an adapter, the alpha of a GGUF file."""

from __future__ import annotations

import math

import numpy as np

from lessonkit.course.exercises.attempts import Exercise, Mistake

Shapes = dict[str, tuple[int, int]]


def merged_weight(
    weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float, rslora: bool
) -> np.ndarray:
    """W + scale * B @ A; the scale is alpha / rank, for rsLoRA alpha / sqrt(rank)."""
    rank = a.shape[0]
    return weight + alpha / (math.sqrt(rank) if rslora else rank) * (b @ a)


def adapter_size(shapes: Shapes, rank: int, saved: set[str]) -> int:
    """Numbers in an adapter: (out + in) * rank a weight, and whole what is saved."""
    return sum(
        rows * columns if name in saved else rank * (rows + columns)
        for name, (rows, columns) in shapes.items()
    )


def gguf_alpha(rank: int, alpha: float, rslora: bool) -> float:
    """What to write as alpha, where the program that reads it multiplies by alpha / rank."""
    return alpha * math.sqrt(rank) if rslora else alpha


def _merge_cases() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, float, bool]]:
    rng = np.random.default_rng(4)
    cases = []
    settings = [
        (2, 3, 2, 4.0, False),
        (2, 2, 4, 8.0, True),
        (6, 3, 2, 2.0, True),
        (3, 5, 3, 6.0, False),
    ]
    for rows, columns, rank, alpha, rslora in settings:
        shapes = [(rows, columns), (rank, columns), (rows, rank)]
        w, a, b = (rng.integers(-3, 4, shape).astype(float) for shape in shapes)  # read with ease
        cases.append((w, a, b, alpha, rslora))
    return cases


def _size_cases() -> list[tuple[Shapes, int, set[str]]]:
    square: Shapes = {"q_proj": (256, 256)}
    block: Shapes = {"q_proj": (256, 256), "k_proj": (128, 256), "down_proj": (256, 768)}
    whole: Shapes = {"embed_tokens": (4096, 256), "q_proj": (256, 256), "lm_head": (4096, 256)}
    return [
        (block, 4, set()),
        (square, 8, set()),
        (block, 16, {"k_proj"}),
        (whole, 4, {"embed_tokens", "lm_head"}),
    ]


def _alpha_cases() -> list[tuple[int, float, bool]]:
    plain = [(16, 32.0, False), (8, 8.0, False)]
    return [(16, 32.0, True), (64, 16.0, True), (8, 12.0, True), *plain]  # 8 is no square


def _without_rank(
    weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float, rslora: bool
) -> np.ndarray:
    return weight + alpha * (b @ a)


def _never_rslora(
    weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float, rslora: bool
) -> np.ndarray:
    return merged_weight(weight, a, b, alpha, False)


def _the_other_divisor(
    weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float, rslora: bool
) -> np.ndarray:
    return merged_weight(weight, a, b, alpha, not rslora)


def _by_the_inputs(
    weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float, rslora: bool
) -> np.ndarray:
    inputs = a.shape[1]
    return weight + alpha / (math.sqrt(inputs) if rslora else inputs) * (b @ a)


def _only_the_change(
    weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float, rslora: bool
) -> np.ndarray:
    return merged_weight(np.zeros_like(weight), a, b, alpha, rslora)


def _product_of_all(shapes: Shapes, rank: int, saved: set[str]) -> int:
    return sum(
        rows * columns * (1 if name in saved else rank) for name, (rows, columns) in shapes.items()
    )


def _nothing_saved(shapes: Shapes, rank: int, saved: set[str]) -> int:
    return adapter_size(shapes, rank, set())


def _saved_left_out(shapes: Shapes, rank: int, saved: set[str]) -> int:
    return adapter_size({n: s for n, s in shapes.items() if n not in saved}, rank, set())


def _only_a(shapes: Shapes, rank: int, saved: set[str]) -> int:
    return sum(
        rows * columns if name in saved else rank * columns
        for name, (rows, columns) in shapes.items()
    )


EXERCISES = [
    Exercise(
        name="merged_weight",
        prompt=(
            "Write merged_weight(weight, a, b, alpha, rslora): numpy arrays of the shapes "
            "(out, in), (rank, in) and (out, rank). Return the merged weight. With rslora the "
            "scale is alpha / sqrt(rank), else alpha / rank."
        ),
        reference=merged_weight,
        make_cases=_merge_cases,
        hint="The rank is a.shape[0]; weight + scale * (b @ a).",
        nudge="Which product of a and b has the shape of the weight, and which side is the rank?",
        mistakes=(
            Mistake(_without_rank, "alpha is not yet the scale: divide it by the rank."),
            Mistake(
                _never_rslora,
                "Right for a plain LoRA. With rslora the divisor is the root of the rank.",
            ),
            Mistake(
                _the_other_divisor,
                "The two divisors are exchanged: the root of the rank belongs to rslora.",
            ),
            Mistake(
                _by_the_inputs,
                "You divide by the number of inputs. The rank is the other side of a: a.shape[0].",
            ),
            Mistake(_only_the_change, "That is the change. Add it to the weight."),
        ),
        rtol=1e-6,
        atol=1e-9,
    ),
    Exercise(
        name="adapter_size",
        prompt=(
            "Write adapter_size(shapes, rank, saved): `shapes` maps the names of weights to "
            "(out, in). How many numbers does the adapter hold? Those named in the set `saved` "
            "are saved whole, all others get a pair B and A."
        ),
        reference=adapter_size,
        make_cases=_size_cases,
        hint="B has out * rank numbers, A has rank * in; a saved weight has out * in.",
        nudge="Which two shapes make up a pair? And what lies in the file for a saved weight?",
        mistakes=(
            Mistake(
                _product_of_all,
                "rank * out * in is far more than the weight itself. B and A lie side by side: "
                "add their sizes.",
            ),
            Mistake(
                _only_a, "You counted one of the two factors. There is a B, and there is an A."
            ),
            Mistake(
                _nothing_saved,
                "What is saved whole has no pair: it takes out * in numbers.",
            ),
            Mistake(
                _saved_left_out,
                "Saved weights lie in the adapter's file too, and often fill most of it.",
            ),
        ),
    ),
    Exercise(
        name="gguf_alpha",
        prompt=(
            "Write gguf_alpha(rank, alpha, rslora): the program that reads the file multiplies "
            "by (what you return) / rank. Return what makes the change as strong as in training."
        ),
        reference=gguf_alpha,
        make_cases=_alpha_cases,
        hint="Solve: answer / rank = alpha / sqrt(rank) for rsLoRA, alpha / rank without.",
        nudge="By how much was the change multiplied in training, and by how much is it here?",
        mistakes=(
            Mistake(
                lambda rank, alpha, rslora: alpha,
                "Right for a plain LoRA; an rsLoRA would come out too weak by sqrt(rank).",
            ),
            Mistake(
                lambda rank, alpha, rslora: alpha / math.sqrt(rank) if rslora else alpha,
                "Not divided: the reader divides by the rank, which is too much by sqrt(rank). "
                "Make up for it.",
            ),
            Mistake(
                lambda rank, alpha, rslora: alpha / (math.sqrt(rank) if rslora else rank),
                "That is the scale itself; the reader will divide by the rank once more.",
            ),
            Mistake(
                lambda rank, alpha, rslora: alpha * math.sqrt(rank),
                "Right for rsLoRA; a plain LoRA's alpha is written as it is.",
            ),
        ),
        rtol=1e-6,
    ),
]
