"""Fetch the optional recogniser: ``python -m recognisers fetch``."""

import recognisers

if __name__ == "__main__":
    recognisers.main()
