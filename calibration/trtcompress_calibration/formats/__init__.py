"""Formats beside Q/DQ and FP16: weights alone as integers, embedding tables, BF16, FP8 and 2:4 sparse weights."""
