"""Load faces: the built-in ORL faces, or a folder of photos.

- ``formats``: which image files are read, and why others are not
- ``faces``: the `Faces` container, and reading one image file
- ``sources``: `load_faces`, the built-in data sets and the layouts of a folder

>>> import datasets
>>> faces = datasets.load_faces("orl", per_identity=1, random_state=0)
>>> faces
<Faces orl: 40 photos of 40 people, 112x92 grey; 360 other photos>
"""

from datasets.faces import Faces, ImageFiles, is_grey, photo_key
from datasets.sources import (
    DATASETS,
    PEOPLE,
    add_people_option,
    built_in,
    is_built_in,
    load_faces,
    warn_of_alike,
)

__all__ = [
    "DATASETS", "PEOPLE", "Faces", "ImageFiles", "add_people_option", "built_in", "is_built_in", "is_grey",
    "load_faces", "photo_key", "warn_of_alike",
]  # fmt: skip
