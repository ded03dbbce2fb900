"""Scales moved from layer to layer before calibration, so that every channel of a tensor is as wide as the others."""
