"""Recovery: a student learns from the model that it came from. Only `recover` and what it calls import PyTorch."""
