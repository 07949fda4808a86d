"""Tensors on disk: reading, writing, checking. Knows no model."""
