"""Decides how each tensor is converted, before anything is written."""
