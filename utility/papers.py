"""Tables in the words of papers: as LaTeX or CSV."""

from __future__ import annotations

import pandas as pd

#: Column or metric -> words of papers. Arrows point to the better value for a release.
_WORDS = {
    "embedding": "Embedding",
    "partitioner": "Partition",
    "anonymizer": "Method",
    "recogniser": "Recogniser",
    "attack": "Attack",
    "level": "Level",
    "metric": "Metric",
    "k": "$k$",
    "information_loss": r"Information loss $\downarrow$",
    "re_identification": r"Re-identification $\downarrow$",
    "rank1_cluster": r"Rank-1 (cluster) $\downarrow$",
    "rank1_person": r"Rank-1 (person) $\downarrow$",
    "chance_cluster": "Chance (cluster)",
    "chance_person": "Chance (person)",
    "detection_rate": r"Face detection $\uparrow$",
    "rate": r"Success $\downarrow$",
    "chance": "Chance",
    "clear": "Original photos",
    "value": "Value",
    "baseline": "Other photo",
    "interval": r"95\,\% CI",
    "age_error": r"Age MAE (years) $\downarrow$",
    "sex_agreement": r"Gender agreement $\uparrow$",
    "ethnicity_agreement": r"Ethnicity agreement $\uparrow$",
    "expression_agreement": r"Expression agreement $\uparrow$",
    "expression_similarity": r"Expression $1 - \mathrm{TV}$ $\uparrow$",
    "gaze_error": r"Gaze error (deg) $\downarrow$",
    "pose_error": r"Head pose error (deg) $\downarrow$",
    "landmark_error": r"Landmark NME $\downarrow$",
    "similarity": r"SSIM $\uparrow$",
    "psnr": r"PSNR (dB) $\uparrow$",
    "niqe": r"NIQE $\downarrow$",
    "fid": r"FID (dlib) $\downarrow$",
    "kid": r"KID (dlib) $\downarrow$",
    "seconds": r"CPU time (s) $\downarrow$",
    "identity_similarity": r"ID similarity (cosine) $\downarrow$",
}


def _escape(text: str) -> str:
    for sign in "&%_#":
        text = text.replace(sign, "\\" + sign)
    return text


def paper_table(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """Name columns and metrics as papers do; columns without a paper's name are left out.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.sweep`, `evaluation.attack_table` or `evaluation.utility_table`; select rows first.
    digits : int, default 3
        Decimals of rates and values.

    Returns
    -------
    DataFrame
        Text, with the interval of ``low`` and ``high`` in one column. Names contain LaTeX. Missing values are ``--``.
    """
    table = table.copy()
    if {"low", "high"} <= set(table.columns):
        pairs = zip(table["low"], table["high"], strict=True)
        table["interval"] = [
            f"[{low:.{digits}f}, {high:.{digits}f}]" if low == low else None for low, high in pairs
        ]
    kept = [name for name in table.columns if name in _WORDS]
    kept.sort(key=list(_WORDS).index)

    def cell(value) -> str:
        if value is None or value != value:
            return "--"
        if isinstance(value, float):
            return f"{value:.{digits}f}"
        return _WORDS[value] if value in _WORDS else _escape(str(value))

    return table[kept].map(cell).rename(columns=_WORDS)


def to_latex(table: pd.DataFrame, digits: int = 3) -> str:
    """A `tabular` with rules of the package booktabs, in the words of papers; see `paper_table`.

    Examples
    --------
    >>> import pandas as pd, utility
    >>> utility.to_latex(pd.DataFrame({"anonymizer": ["aam"], "k": [5]})).splitlines()[2]
    'Method & $k$ \\\\\\\\'
    """
    words = paper_table(table, digits)
    rows = [" & ".join(row) + r" \\" for row in (words.columns, *words.itertuples(index=False))]
    top = [rf"\begin{{tabular}}{{{'l' * len(words.columns)}}}", r"\toprule", rows[0], r"\midrule"]
    return "\n".join([*top, *rows[1:], r"\bottomrule", r"\end{tabular}"])
