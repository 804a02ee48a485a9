# ruff: noqa: E402  (the imports below need a quiet TensorFlow)
"""TensorFlow and Keras, imported without their messages; importing this takes seconds."""

import utils

utils.import_quietly("tensorflow", "keras")

import keras
import tensorflow as tf

__all__ = ["keras", "tf"]
