"""Figures, traces and logs of what `vecstore.observe` is told. Nothing here is imported by the engine."""
