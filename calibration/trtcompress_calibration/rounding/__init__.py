"""Integers of weights and biases chosen so that layers give what the float model gave; scales stay."""
