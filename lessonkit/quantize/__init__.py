"""Choosing the codes: round to nearest, and smarter ways."""
