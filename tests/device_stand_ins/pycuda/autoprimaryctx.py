"""Makes a context when it is imported; here there is none."""
