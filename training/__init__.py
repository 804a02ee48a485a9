"""What the trainings in `CNN` and `stylegan` share.

training_set.py
    `prepare` aligns photos into a `TrainingSet`: pictures, people, landmarks, what is held out, weights of pixels.
loop.py
    `TrainingLoop` shows batches, and keeps log, samples, moving average and checkpoints; `TrainingSettings` are the
    settings that all trainings have.
descent.py
    `minimise` moves variables down the gradient of any loss.
losses.py
    `pyramid_loss` compares pictures on several scales.
command.py
    Options, files and messages of the command lines.
"""

import utils

# Before other modules import them, or they print notes on their build into notebooks.
utils.import_quietly("tensorflow", "keras")
