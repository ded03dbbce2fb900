"""What is copied beside a model that Triton's python backend serves; runs on Python 3.8 and newer, on its own.

Nothing here imports trtcompress: the server does not have it.
"""
