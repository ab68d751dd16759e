"""Chooses bits and scales from a calibration text."""
