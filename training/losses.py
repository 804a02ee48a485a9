"""Losses between a drawn image and its target."""

from __future__ import annotations

from training.backend import tf

# Number of levels of the Laplacian pyramid.
_LEVELS = 5


def pyramid_loss(difference: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted mean absolute difference, in pixels and in each band of a Laplacian pyramid.

    The pyramid loss of Bojanowski et al., "Optimizing the latent space of generative networks", ICML 2018, after Ling
    and Okada, "Diffusion distance for histogram comparison", CVPR 2006.

    Parameters
    ----------
    difference : tensor of float32, shape (n, h, w, c)
    weights : tensor of float32, shape (1 or n, h, w, 1)
        Importance of each pixel.

    Returns
    -------
    scalar tensor
    """
    total = weighted_mean(tf.abs(difference), weights)
    for _ in range(_LEVELS - 1):
        height, width = difference.shape[1], difference.shape[2]
        if min(height, width) < 4:
            break
        # Split off the finest band and continue at half the size. (n, h / 2, w / 2, c)
        coarse = tf.nn.avg_pool2d(difference, 2, 2, "SAME")
        band = difference - tf.image.resize(coarse, (height, width))
        total += weighted_mean(tf.abs(band), weights)
        difference, weights = coarse, tf.nn.avg_pool2d(weights, 2, 2, "SAME")
    return total + weighted_mean(tf.abs(difference), weights)


def weighted_mean(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Mean of values (n, h, w, c), weighted by pixel (1 or n, h, w, 1)."""
    return tf.reduce_mean(values * weights) / tf.reduce_mean(weights)
