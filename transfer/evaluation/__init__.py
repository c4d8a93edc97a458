"""Predictions to numbers, and nothing else: metrics, calibration, significance, published ones."""
