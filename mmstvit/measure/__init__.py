"""Measure networks: multiply-adds, parameters and tokens, times, and memory."""
