"""Gradient descent with Adam, with learning rates that follow a half cosine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from training.backend import keras, tf

#: Gradients of networks are clipped to this norm.
LARGEST_NORM = 5.0


def half_cosine(share):
    """Half cosine from 1 at share 0 to 0 at share 1; share is a number or an array."""
    return 0.5 * (1 + np.cos(np.pi * share))


def minimise(
    loss: Callable[..., tf.Tensor],
    variables: Sequence[tf.Variable],
    rates: Sequence[float],
    batches: Iterable[tuple] | None = None,
    largest_norm: float | None = None,
) -> None:
    """Minimise a loss over variables with Adam.

    Parameters
    ----------
    loss : callable
        Takes the tensors of a batch and returns a scalar tensor.
    variables : sequence of tf.Variable
    rates : sequence of float
        Learning rate of each step.
    batches : iterable of tuples of arrays, optional
        One batch per step; by default the loss takes no arguments.
    largest_norm : float, optional
        Gradients are clipped to this norm.
    """
    optimizer = keras.optimizers.Adam(beta_2=0.99)
    optimizer.build(variables)

    @tf.function
    def step(*batch):
        with tf.GradientTape() as tape:
            value = loss(*batch)
        gradients = tape.gradient(value, variables)
        if largest_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, largest_norm)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for rate, batch in zip(rates, [()] * len(rates) if batches is None else batches, strict=True):
        optimizer.learning_rate.assign(rate)
        step(*map(tf.constant, batch))
