"""Matrices to encode: the same bits everywhere, whatever the version of numpy.

numpy promises the raw bits of a generator, not its normal deviates; so these are made of
raw bits by exact or once-rounded float32 arithmetic.
"""

from __future__ import annotations

import numpy as np

from lessonkit.formats.ggml import FORMATS

SHAPE = (12, 512)


def bell(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Nearly normal float32 numbers, standard deviation 1: sums of twelve uniform ones."""
    raw = np.random.PCG64(seed).random_raw(3 * shape[0] * shape[1])
    parts = raw.view("<u2").reshape(*shape, 12).astype(np.int64)
    return (parts.sum(axis=-1) - 6 * 65536).astype(np.float32) / np.float32(65536)


def samples() -> dict[str, np.ndarray]:
    """Kinds of rows that take different ways through the searches, by name."""
    x, y = bell(1), bell(2)
    small = np.float32(0.02)
    outlier = x * small
    outlier[np.arange(len(x)), (np.arange(len(x)) * 37) % x.shape[1]] = 50
    return {
        "normal": x * small,
        "heavy-tailed": small * x / (np.abs(y) + np.float32(0.01)),
        "constant": np.repeat(bell(3, (SHAPE[0], 4)), SHAPE[1] // 4, axis=1),
        "equal magnitudes": np.where(x > 0, np.float32(0.25), np.float32(-0.25)),
        "zeros": np.zeros(SHAPE, np.float32),
        "zeros of both signs": x * np.float32(0),
        "one outlier": outlier,
        "denormal": x * np.float32(1e-39),
        "near the smallest scale": x * np.float32(1e-15),
        "pruned": np.where(y > 1, x, x * np.float32(0)),
        "positive": np.abs(x),
        "far from zero": x * np.float32(1e-3) - 100,
        "ties": np.round(x * 4) / np.float32(8),
        "scales apart": x * np.ldexp(np.float32(1), np.round(y * 3).astype(np.int32)),
    }


def importance(columns: int = SHAPE[1]) -> np.ndarray:
    """An importance matrix of wide range, with some zeros."""
    x = bell(4, (1, columns))[0]
    weights = x * x * np.ldexp(np.float32(1), np.round(3 * x).astype(np.int32))
    return np.where(x > 1.2, np.float32(0), weights)


def random_bytes(name: str, blocks: int = 40) -> np.ndarray:
    """Blocks of any bytes but with finite scales: uint8 [4, ...]."""
    kind = FORMATS[name]
    raw = np.random.PCG64(5).random_raw(blocks * kind.bytes // 8 + 1).view(np.uint8)
    out = raw[: blocks * kind.bytes].copy().view(kind.layout)
    for field in {"d", "m", "dmin"} & set(kind.layout.names or ()):
        out[field] = bell(6, (1, blocks))[0] * np.float32(0.01)
    return out.view(np.uint8).reshape(4, -1)
