"""The training code that `CNN` and `stylegan` share.

training_set.py
    `prepare` aligns photos into a `TrainingSet`: aligned photos, people, landmarks, held-out photos, pixel weights.
loop.py
    `TrainingLoop` trains on batches, and keeps the log, samples, moving average and checkpoints; `TrainingSettings`
    are the common settings.
descent.py
    `minimise` minimises any loss by gradient descent.
losses.py
    `pyramid_loss` compares images at several scales.
command.py
    Options, files and messages of the training commands.
"""

import utils

# Set this before other modules import TensorFlow, or it prints build messages into notebooks.
utils.import_quietly("tensorflow", "keras")
