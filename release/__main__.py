"""Audit a release folder: ``python -m release audit FOLDER``."""

import release

if __name__ == "__main__":
    release.main()
