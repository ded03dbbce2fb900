"""`python -m trtcompress`: the same as `trtcompress`."""

from .cli.start import main

main()
