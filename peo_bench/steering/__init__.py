"""Finished families put to use: steered, asked, exported."""
