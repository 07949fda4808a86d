"""GPTQ: round one input column after another, and let the columns that follow make up for it.

Rounding a weight [out, in] changes the layer's output by E X, with E the change of the weight
and X the inputs. Its size is tr(E H E^T), where H = 2 X X^T / tokens, the *Hessian*, is all
that GPTQ needs to know of the calibration text. If columns i+1, i+2 .. are still free, the
error e of column i is compensated best by adding to each of them a multiple of e, and all
those multiples stand in row i of one triangular matrix: the factor U of H^-1 = U^T U.

Frantar et al. 2022, https://arxiv.org/abs/2210.17323; what follows the practice of
GPTQModel's `quantization/gptq.py` and `gar.py` rather than the paper says so. Three things
differ from both: a group's parameters are always found on weights that carry every
correction so far (both look at stale ones if groups are smaller than the batch of 128); scales
are rounded to what the file stores before any code is chosen; dead columns come last in every
order and do not enter the damping.

The same input gives the same bytes on one machine with one number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lessonkit.errors import LessonkitError
from lessonkit.formats.arrays import require_finite
from lessonkit.quantize.grids import Grid, Parameters, Quantized, as_matrix, join, stored

if TYPE_CHECKING:
    import torch

BATCH = 128
"""Columns whose corrections are kept back and applied to the rest of the matrix at once."""

DAMPING_STEP = 0.01
"""What is added to the damping when the Hessian cannot be factored, as in GPTQModel."""

Order = Literal["natural", "desc_act", "act_group_aware"]


class Hessian:
    """2 / tokens * X^T X of a layer's inputs X [tokens, in], a running mean in float32.

    Parameters
    ----------
    columns:
        Width of the inputs.
    device:
        Where the matrix [columns, columns] is kept: 4 * columns^2 bytes.
    """

    def __init__(self, columns: int, device: torch.device | str = "cpu") -> None:
        import torch

        self.matrix = torch.zeros(columns, columns, device=device)
        self.tokens = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Take in inputs of shape [.., in], one token a row, of any floating-point dtype."""
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).to(self.matrix)
        before, self.tokens = self.tokens, self.tokens + rows.shape[0]
        if rows.shape[0]:
            self.matrix.addmm_(rows.T, rows, beta=before / self.tokens, alpha=2 / self.tokens)


@dataclass(frozen=True)
class GptqResult:
    """What GPTQ made of one weight.

    Attributes
    ----------
    quantized:
        Codes, scales, zero-points and `g_idx` as files hold them.
    weight:
        float32 [out, in], the weight that a reader of these gets.
    output_error:
        See `output_error`: the weight's, in the metric of the Hessian given.
    damping:
        The share of the mean diagonal that was in fact added to the diagonal.
    """

    quantized: Quantized
    weight: torch.Tensor
    output_error: float
    damping: float


def gptq(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    grid: Grid,
    *,
    order: Order = "act_group_aware",
    static_groups: bool = False,
    damping: float = 0.05,
) -> GptqResult:
    """Quantise a weight [out, in] onto a grid so that the layer's output changes little.

    Parameters
    ----------
    weight:
        Floating point, any dtype; it is not changed. The work is done in float32 on the
        device of the weight, with about five times its size and three times the Hessian's.
    hessian:
        float32 [in, in], as `Hessian` collects it; not changed either. An input
        that was always 0 (*dead*) has 0 on the diagonal; its weights become 0.
    grid:
        The values allowed; see `quantize.grids`.
    order:
        In which order columns are rounded; early columns have more others to make up for
        them. "natural": as they stand. "desc_act": by falling diagonal of the Hessian, so
        that groups are scattered over the row, and readers need `g_idx`.
        "act_group_aware": the same, but inside each group, and groups by their largest
        diagonal (GPTQModel's default; Gafni et al. 2025, https://arxiv.org/abs/2505.14638).
    static_groups:
        Find all parameters on the original weight, in groups as they stand. Then
        "desc_act" leaves `g_idx` contiguous.
    damping:
        Share of the mean diagonal added to the diagonal, so that it can be inverted: .01
        in the paper's code, .05 in GPTQModel. It grows by .01 as long as that fails.

    Raises LessonkitError for wrong shapes, NaN or infinity, a group size that does not
    divide `in`, and a Hessian that no damping below 1 makes positive definite.
    """
    import torch

    original = as_matrix(weight)
    columns = original.shape[1]
    _check(columns, hessian, order, damping)
    hessian = hessian.to(original)
    groups = grid.groups_in(columns)
    permutation = column_order(hessian.diagonal(), groups, order)
    size = columns // groups
    g_idx = torch.arange(columns, device=original.device) // size
    if order == "desc_act" and not static_groups:
        g_idx = g_idx[permutation.argsort()]
    factor, damping = inverse_factor(hessian, permutation, damping)

    # Columns become rows, in the order in which they are rounded: each is contiguous then.
    alive = original.masked_fill(hessian.diagonal() == 0, 0)
    weights = alive.T[permutation]
    fitted = {}
    if static_groups:
        fitted = {i: grid.fit(group) for i, group in enumerate(alive.split(size, dim=1))}
    codes = round_columns(weights, factor, grid, g_idx[permutation].tolist(), size, fitted)

    back = permutation.argsort()
    parameters = join([fitted[group] for group in range(groups)])
    quantized = stored(grid, codes[back].T.contiguous(), parameters, g_idx)
    result = weights[back].T.contiguous()
    return GptqResult(quantized, result, output_error(original, result, hessian), damping)


def output_error(weight: torch.Tensor, replacement: torch.Tensor, hessian: torch.Tensor) -> float:
    """Return the relative squared error of a layer's output on the inputs behind a Hessian.

    `tr(E H E^T) / tr(W H W^T)`, with E = replacement - weight, both [out, in]: the sum of
    squares of the output's change over that of the output. Its root is a relative RMS error.
    """
    weight = as_matrix(weight)
    hessian = hessian.to(weight)
    whole = energy(weight, hessian)
    return energy(replacement.to(weight) - weight, hessian) / whole if whole > 0 else 0.0


def energy(matrix: torch.Tensor, hessian: torch.Tensor) -> float:
    """Return tr(M H M^T), M [out, in]; H is symmetric, so blocks off the diagonal count twice."""
    total = 0.0
    for start in range(0, matrix.shape[1], 4 * BATCH):
        block = slice(start, start + 4 * BATCH)
        product = matrix[:, block] @ hessian[block, block]
        product.addmm_(matrix[:, :start], hessian[:start, block], alpha=2)
        total += float(product.mul_(matrix[:, block]).sum(dim=1).double().sum())
    return total


def column_order(diagonal: torch.Tensor, groups: int, order: Order) -> torch.Tensor:
    """Return the columns in the order in which they are to be rounded: int64 [in].

    `diagonal` is the Hessian's, `groups` the number of groups of a row. Of equal
    columns, or groups, the first one comes first.
    """
    import torch

    columns = torch.arange(len(diagonal), device=diagonal.device)
    if order == "natural":
        return columns
    if order == "desc_act":
        return diagonal.argsort(descending=True, stable=True)
    by_group = diagonal.view(groups, -1)
    inside = by_group.argsort(dim=1, descending=True, stable=True)
    among = by_group.amax(dim=1).argsort(descending=True, stable=True)
    return columns.view(groups, -1).gather(1, inside)[among].flatten()


def inverse_factor(
    hessian: torch.Tensor, permutation: torch.Tensor, damping: float
) -> tuple[torch.Tensor, float]:
    """Return the upper triangular U with U^T U = (damped, permuted H)^-1, and the damping used.

    GPTQ's code inverts H and factors the inverse. Factoring H from its last row and column
    to its first, H = R R^T with R upper triangular, gives U = R^-1 with one factorisation
    fewer, and none of a matrix that rounding may have made indefinite.
    """
    import torch

    diagonal = hessian.diagonal()
    require_finite(diagonal, where="hessian")
    live = diagonal != 0
    if not bool(live.any()):
        raise LessonkitError(
            "All inputs of this layer were 0: nothing is known of how they vary.",
            where="hessian",
            remedy="Check that the calibration text reaches the layer, and that inputs were added.",
        )
    mean = diagonal[live].mean()
    reverse = permutation.flip(0)
    damped = hessian[reverse[:, None], reverse]
    undamped_diagonal = torch.where(live, diagonal, mean)[reverse]
    while True:
        damped.diagonal().copy_(undamped_diagonal + damping * mean)
        lower, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0:
            break
        damping += DAMPING_STEP
        if damping >= 1:
            raise LessonkitError(
                "The Hessian is not positive definite, whatever is added to its diagonal.",
                where="hessian",
                remedy="It must be X^T X of finite inputs; collect it again.",
            )
    del damped
    inverse = torch.eye(len(diagonal), device=hessian.device)
    torch.linalg.solve_triangular(lower, inverse, upper=False, out=inverse)
    return inverse.flip(0, 1), damping


def round_columns(
    weights: torch.Tensor,
    factor: torch.Tensor,
    grid: Grid,
    groups: list[int],
    size: int,
    fitted: dict[int, Parameters],
) -> torch.Tensor:
    """Round the rows of `weights` [in, out] in turn, in place; return the codes [in, out].

    `groups` names each row's group. A group that is not yet in `fitted` is fitted when
    its first row is reached; its `size` rows then follow one another.
    """
    import torch

    codes = torch.empty_like(weights, dtype=torch.uint8)
    for first, last in _batches(len(weights), size):
        batch, upper = weights[first:last], factor[first:last, first:last]
        errors = torch.empty_like(batch)
        for i, pivot in enumerate(upper.diagonal().tolist()):
            group = groups[first + i]
            if group not in fitted:
                fitted[group] = grid.fit(weights[first + i : first + i + size].T)
            codes[first + i] = grid.encode(batch[i], fitted[group])
            value = grid.decode(codes[first + i], fitted[group])
            errors[i] = (batch[i] - value) / pivot
            batch[i] = value
            batch[i + 1 :].addr_(upper[i, i + 1 :], errors[i], alpha=-1)
        weights[last:].addmm_(factor[first:last, last:].T, errors, alpha=-1)
    return codes


def _batches(columns: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut the columns into batches of at most 128 such that every group begins up to date.

    A group then lies within one batch, or begins with one.
    """
    span = max(size, BATCH // size * size)
    for start in range(0, columns, span):
        end = min(start + span, columns)
        for first in range(start, end, BATCH):
            yield first, min(first + BATCH, end)


def _check(columns: int, hessian: torch.Tensor, order: str, damping: float) -> None:
    if hessian.shape != (columns, columns):
        raise LessonkitError(
            f"A Hessian of shape {tuple(hessian.shape)} does not go with {columns} inputs.",
            where="hessian",
            remedy=f"It must be [{columns}, {columns}].",
        )
    if not 0 <= damping < 1:
        raise LessonkitError(
            f"A damping of {damping:g} is no share of the mean diagonal.",
            where="damping",
            remedy="Use a number from 0 to below 1; .01 to .1 are usual.",
        )
    if order not in ("natural", "desc_act", "act_group_aware"):
        raise LessonkitError(
            f"There is no order {order!r}.",
            where="order",
            remedy="Use 'natural', 'desc_act' or 'act_group_aware'.",
        )
