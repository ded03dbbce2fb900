"""The command line: main.py finds commands, one file each, and imports a file when its command is used."""
