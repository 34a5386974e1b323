"""The folder of a run: its files, their names and what is in them."""
