"""Checkpoint in, checkpoint out, streamed."""
