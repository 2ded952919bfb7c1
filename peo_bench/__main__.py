"""`python -m peo_bench`."""

from peo_bench.cli import main

if __name__ == "__main__":
    main()
