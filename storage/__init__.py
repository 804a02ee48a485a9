"""Files and the cache: safe reading, atomic saving, and cached results.

- ``reading``: the budget of memory and time, and errors that name the file
- ``kinds``: what a file really is, by its first bytes
- ``arrays``: plain arrays in ``.npy`` and ``.npz`` files
- ``pickles``: the data in a pickle, read without executing it
- ``hdf5``: checks of HDF5 files before their arrays are read
- ``descriptions``: JSON
- ``encodings``: face descriptors in any of these formats, and in ``.csv``
- ``saving``: writing files that are either complete or absent
- ``keys``: keys of cached results, from their inputs and from the code that computes them
- ``folder``: the folder of the cache
- ``cache``: stored results, and functions that compute only missing results
- ``parallel``: work in several processes
- ``progress``: progress bars
- ``packages``: data files of installed packages

Other modules call it through `utils`. Nothing here executes anything that a file contains.
"""

from pathlib import Path

#: The repository.
ROOT = Path(__file__).resolve().parents[1]
