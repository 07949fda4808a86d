"""Tests: unit tests mirror the package; the others hold the whole together."""
