"""The version of mmstvit, also read by ``setup.py`` (so this file imports nothing)."""

__version__ = '0.1.0'
