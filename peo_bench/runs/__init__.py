"""One benchmark run: its configuration, its world, its execution, its folder."""
