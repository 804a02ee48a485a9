"""Files and the cache: safe reading, atomic saving, and results that are kept.

- ``reading``: the size limit, and errors that name the file
- ``arrays``: plain arrays in ``.npy`` and ``.npz`` files
- ``pickles``: the data in a pickle, read without running it
- ``encodings``: face descriptors in any of these formats, and in ``.csv``
- ``saving``: files that are either complete or absent
- ``keys``: keys of cached results, from their content and from the code that computes them
- ``cache``: where results are kept, and functions that compute only missing ones
- ``progress``: progress bars
- ``packages``: data files of installed packages

Other modules call it through `utils`. Nothing here runs anything that a file contains.
"""

from pathlib import Path

#: The repository.
ROOT = Path(__file__).resolve().parents[1]
