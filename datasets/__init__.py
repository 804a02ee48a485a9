"""Faces come in: the built-in ORL faces, or a folder of photos.

>>> import datasets
>>> faces = datasets.load_faces("orl", per_identity=1, random_state=0)
>>> faces
<Faces orl: 40 photos of 40 people, 112x92 grey; 360 other photos>
"""

from datasets.faces import Faces, ImageFiles, is_grey
from datasets.sources import DATASETS, load_faces, load_folder, load_orl

__all__ = ["DATASETS", "Faces", "ImageFiles", "is_grey", "load_faces", "load_folder", "load_orl"]
