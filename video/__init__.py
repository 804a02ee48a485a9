"""Read and write videos, and find and link the faces in them.

============  ===========================================================================
streams.py    videos as streams of frames, without metadata; segments and their joining
searching.py  the faces on all frames, in two passes that resume
tracks.py     faces of single frames -> tracks; where each face is on every frame
============  ===========================================================================
"""
