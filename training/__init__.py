"""The training code that `CNN` and `stylegan` share.

backend.py
    TensorFlow and Keras, imported without their messages.
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
