"""Curbside: an end-to-end encrypted messenger for clinicians and patients."""

__version__ = "0.1.0"
