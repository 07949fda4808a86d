"""The exercises of each lesson: one module a lesson, each with a list EXERCISES."""
