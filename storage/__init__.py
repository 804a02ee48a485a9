"""Files and the cache: safe reading, atomic saving, and cached results.

- ``reading``: the size limit, and errors that name the file
- ``arrays``: plain arrays in ``.npy`` and ``.npz`` files
- ``pickles``: the data in a pickle, read without executing it
- ``encodings``: face descriptors in any of these formats, and in ``.csv``
- ``saving``: writing files that are either complete or absent
- ``keys``: keys of cached results, from their inputs and from the code that computes them
- ``cache``: stored results, and functions that compute only missing results
- ``progress``: progress bars
- ``packages``: data files of installed packages

Other modules call it through `utils`. Nothing here executes anything that a file contains.
"""

from pathlib import Path

#: The repository.
ROOT = Path(__file__).resolve().parents[1]
