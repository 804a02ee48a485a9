"""Labels, colours and styles of figures.

Change `LABELS` to rename an entry in all figures and menus, `COLOURS` and `MARKERS` to change the look of curves, and
`STYLE` to change fonts, grid and resolution.

The colours are the Okabe-Ito palette, which is readable with all common kinds of colour blindness. Every curve also
has its own marker, so that figures can be printed in grey.
"""

from __future__ import annotations

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]

#: Colour of the baselines: random clusters, original photos.
BASELINE_GREY = "#7F7F7F"

#: Thin black dots: bounds, thresholds and chance.
REFERENCE_LINE = {"color": "black", "linewidth": 0.8, "linestyle": ":"}

#: Matplotlib settings of all figures.
STYLE = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "savefig.dpi": 300,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 9,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # embed TrueType fonts, as publishers require
}

#: Names in tables -> words in figures.
LABELS = {
    "information_loss": "Information loss (distance)",
    "information_loss_gallery": "Information loss, other photos (distance)",
    "re_identification": "Re-identification rate",
    "re_identification_gallery": "Re-identification rate, other photos",
    "rank1_cluster": "Cluster found first",
    "rank1_person": "Person found first",
    "rank1_person_high": "Person found first, upper bound",
    "stranger_share": "Strangers under the threshold",
    "detection_rate": "Surrogates with a face",
    "embedding": "Embedding",
    "partitioner": "Partition",
    "anonymizer": "Anonymizer",
    "pca": "PCA",
    "facenet": "FaceNet",
    "pixel": "k-Same (pixel)",
    "eigen": "k-Same-Eigen",
    "aam": "k-Same-M (AAM)",
    "cnn": "k-Same-Net (CNN)",
    "stylegan": "AnonFACES (StyleGAN), mean",
    "stylegan_adjusted": "AnonFACES, weight adjusted",
    "eigen_private": "k-Same-Eigen with Laplace noise",
    "stylegan_random": "AnonFACES, random weights",
    "stylegan_tuned": "AnonFACES, tuned (ours)",
    "stylegan_adjusted_published": "weight adjusted, released form",
    "stylegan_random_published": "random weights, released form",
    "rate": "Success rate",
    "age_error": "Age error (years)",
    "sex_agreement": "Same sex read",
    "expression_agreement": "Same expression read",
    "pose_error": "Pose error (degrees)",
    "landmark_error": "Landmark error (eye distances)",
    "sharpness": "Sharpness",
    "similarity": "SSIM to the photo",
    "fid": "FID (dlib descriptors)",
    "kid": "KID (dlib descriptors)",
    "privacy": "Success rate of the target",
    "loss": "Information loss (distance)",
    "none": "no anonymization",
}


def label(name: str) -> str:
    """Return the label of a name in figures: its entry in `LABELS`, else the name with spaces for underscores.

    Examples
    --------
    >>> from labels import label
    >>> label("aam"), label("kmeans_elki")
    ('k-Same-M (AAM)', 'kmeans elki')
    """
    return LABELS.get(name, name.replace("_", " "))


def line_style(name: str, position: int) -> dict:
    """Return Matplotlib's options for a curve: its colour, marker and line.

    Parameters
    ----------
    name : str
        The name of the curve; the baselines ``"random"`` and ``"none"`` are grey.
    position : int
        Number of the curve in its figure, from 0. The first eight have solid lines, the others dotted lines.
    """
    if name in ("random", "none"):
        return {"color": BASELINE_GREY, "marker": ".", "linestyle": "--", "zorder": 1}
    return {
        "color": COLOURS[position % len(COLOURS)],
        "marker": MARKERS[(position + position // len(COLOURS)) % len(MARKERS)],
        "linestyle": "-" if position < len(COLOURS) else ":",
        "markersize": 4,
        "linewidth": 1.3,
        "zorder": 2,
    }
