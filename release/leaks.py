"""Measure what a release of photos still gives away by attacking it.

A photo shows more than a face, so photos are attacked in three ways: by the pasted face, by head and shoulders with the
face painted over (hair, clothes, background), and by the whole frame. The attacker holds either the same photos,
labelled with names, or other photos of the same people.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

import attacks
import detection
import recognisers
from datasets.faces import read_image
from detection import Spot
from release import pasting
from release.planning import Plan

#: Head and shoulders, in face widths: width, height, and distance from the top to the face's middle; grid of colours.
_CONTEXT_WIDTH, _CONTEXT_HEIGHT, _CONTEXT_ABOVE = 3.4, 4.2, 1.6
_CONTEXT_GRID = (12, 10)  # rows, columns
_FRAME_GRID = (12, 16)
#: In a photo of several people an attacker sees which face is meant: its position counts as this many Lab levels.
_PLACE = 30.0

_ORIGINAL_FACE = "face, before"
_FACE = "face, as released"
_SURROGATE = "surrogate"
_CONTEXT = "hair, clothes and background; face painted over"
_FRAME = "whole photo, as released"

#: Their names in the printed sentences.
_IN_WORDS = {"the pasted face": _FACE, "its surroundings": _CONTEXT, "the whole photo": _FRAME}

_SAME_PHOTOS, _OTHER_PHOTOS = "the same photos", "other photos of the same people"

#: How photos without faces are compared.
_COLOURS = "colours"

_COLUMNS = [
    "what is attacked",
    "attacker holds",
    "compared by",
    "people",
    "rate",
    "low",
    "high",
    "chance",
    "note",
]


# ----------------------------------------------------------------------------------------------------------
# The attacker's view
# ----------------------------------------------------------------------------------------------------------


def _describe_colours(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Colours on a coarse grid (rows, columns): Lab without the mean lightness, float32 (rows * columns * 3,)."""
    small = cv2.resize(image, (grid[1], grid[0]), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    lab[..., 0] -= lab[..., 0].mean()
    return lab.ravel()


def _describe_context(photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Describe the surroundings of a face by their colours, with the face painted over.

    Parameters
    ----------
    photo : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)

    Returns
    -------
    ndarray of float32, shape (360,)
    """
    width = float(np.linalg.norm(landmarks[16] - landmarks[0]))
    middle = (landmarks[0] + landmarks[16]) / 2
    columns = 8 * _CONTEXT_GRID[1]
    scale = columns / (_CONTEXT_WIDTH * width)
    corner = middle - width * np.array([_CONTEXT_WIDTH / 2, _CONTEXT_ABOVE])
    transform = np.column_stack([scale * np.eye(2), -scale * corner])
    rows = round(_CONTEXT_HEIGHT * width * scale)
    window = detection.cut(pasting.cover(photo, landmarks), transform, rows, columns)
    return _describe_colours(window, _CONTEXT_GRID)


def _describe_frame(photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Describe a whole photo by its colours, and which of its faces is meant.

    Parameters
    ----------
    photo : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)

    Returns
    -------
    ndarray of float32, shape (578,)
        Colours, then the face's position: x and y as shares of the photo's sides, times 30.
    """
    place = _PLACE * landmarks.mean(axis=0) / photo.shape[1::-1]
    return np.append(_describe_colours(photo, _FRAME_GRID), place.astype(np.float32))


# ----------------------------------------------------------------------------------------------------------
# Attacks
# ----------------------------------------------------------------------------------------------------------


def measure(plan: Plan, finished: Mapping[int, Path], mode: str, random_state: int = 0) -> pd.DataFrame:
    """Attack the released photos, or in ``"shared"`` mode the surrogates; faces that were kept are left out.

    Faces are compared by the strongest recogniser that is installed, see `recognisers.strongest`.

    Parameters
    ----------
    plan : release.planning.Plan
    finished : mapping of int to Path
        The file of each released photo.
    mode : str
    random_state : int, default 0
        Seed for the intervals and for the choice of the attacker's photos.

    Returns
    -------
    DataFrame
        One row per target and gallery. ``rate`` is the share of people whom the nearest face or image identifies
        correctly, with a 95 % interval from ``low`` to ``high``; ``chance`` is the rate of a blind guess.
    """
    rows = _attacked_rows(plan, finished, mode)
    if plan.is_empty or len(np.unique(plan.found.faces.identities[rows])) < 2:
        return pd.DataFrame(columns=_COLUMNS)
    faces, photo = plan.found.faces.select(rows), plan.found.photo[rows]
    people, recogniser = faces.identities, recognisers.strongest()
    describe = recognisers.prepare(recogniser, faces)
    before = describe(faces)
    if mode == "shared":
        drawn = describe([surrogate.image for surrogate in plan.surrogates])
        found = np.array([surrogate.landmarks is not None for surrogate in plan.surrogates])
        release = attacks.DescribedRelease(drawn, found, plan.labels[rows], people)
        gallery = attacks.Gallery(before, people, "same photos")
        row = _attack(_SURROGATE, _SAME_PHOTOS, release, gallery, random_state)
        return pd.DataFrame([{**row, "compared by": recogniser}], columns=_COLUMNS)
    mine, theirs = _halves(people, photo, random_state)
    every, all_found = np.arange(len(people)), np.ones(len(people), dtype=bool)
    table = []
    crops, contexts, frames = _described_photos(plan, rows, finished)
    attacked_parts = {
        _ORIGINAL_FACE: (before, before, all_found),
        _FACE: (describe(crops), before, detection.detect(crops).found),
        _CONTEXT: (*contexts, all_found),
        _FRAME: (*frames, all_found),
    }
    for what, (drawn, held, found) in attacked_parts.items():
        compared = {"compared by": recogniser if what in (_ORIGINAL_FACE, _FACE) else _COLOURS}
        galleries = [(_SAME_PHOTOS, every, every), (_OTHER_PHOTOS, mine, theirs)]
        if what == _ORIGINAL_FACE:  # among the same photos, each is its own nearest neighbour
            galleries = galleries[1:]
        for whose, attacked, known in galleries:
            if len(np.unique(people[attacked])) < 2:
                note = "not attacked: fewer than two people have several photos"
                table.append({"what is attacked": what, "attacker holds": whose, "note": note})
                continue
            alone = np.arange(len(attacked))  # each photo is a cluster of its own
            release = attacks.DescribedRelease(drawn[attacked], found[attacked], alone, people[attacked])
            gallery = attacks.Gallery(held[known], people[known], "same photos")
            table.append({**_attack(what, whose, release, gallery, random_state), **compared})
    return pd.DataFrame(table, columns=_COLUMNS)


def _attacked_rows(plan: Plan, finished: Mapping[int, Path], mode: str) -> np.ndarray:
    """Rows of the faces whose replacement was released."""
    if plan.found is None:
        return np.zeros(0, dtype=np.int64)
    if mode == "shared":
        return np.flatnonzero(~plan.kept if plan.labels is None else plan.labels >= 0)
    return np.flatnonzero(~plan.kept & np.isin(plan.found.photo, list(finished)))


def _halves(people: np.ndarray, photo: np.ndarray, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the probes and of the gallery: different photos, with every attacked person in both."""
    numbers = np.random.default_rng(random_state).permutation(np.unique(photo))
    theirs = np.isin(photo, numbers[: len(numbers) // 2])
    mine = ~theirs & np.isin(people, people[theirs])
    return np.flatnonzero(mine), np.flatnonzero(theirs)


def _attack(
    what: str, whose: str, release: attacks.DescribedRelease, gallery: attacks.Gallery, random_state: int
) -> dict:
    """Search a gallery for the people of a release: one row of the table."""
    results = attacks.identification(release, gallery, ranks=(1,), random_state=random_state)
    person = next(result for result in results if result.level == "person").row()
    n_missed = int((~release.found).sum())
    return {
        "what is attacked": what,
        "attacker holds": whose,
        "people": len(np.unique(release.identities)),
        **{name: person[name] for name in ("rate", "low", "high", "chance")},
        "note": f"no face was found in {n_missed} of {len(release.found)}" if n_missed else "",
    }


def _described_photos(
    plan: Plan, rows: np.ndarray, finished: Mapping[int, Path]
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """The n released faces as crops, and the colours of their contexts and whole frames.

    Returns
    -------
    crops : list of ndarray of uint8, shape (h, w, 3)
    contexts, frames : ndarray, shape (2, n, d)
        Of the released and of the original photos.
    """
    crops, contexts, frames = [], [], []
    for i in np.unique(plan.found.photo[rows]):
        original, released = plan.photos[i].read(), read_image(finished[i])
        scale = released.shape[0] / original.shape[0]
        for spot, row in plan.faces_on(i):
            if row is None or row not in rows:
                continue
            crops.append(_same_crop(released, spot, scale))
            landmarks = (spot.landmarks + 0.5) * scale - 0.5
            pairs = ((released, landmarks), (original, spot.landmarks))
            contexts.append([_describe_context(*pair) for pair in pairs])
            frames.append([_describe_frame(*pair) for pair in pairs])
    return crops, np.array(contexts).swapaxes(0, 1), np.array(frames).swapaxes(0, 1)


def _same_crop(released: np.ndarray, spot: Spot, scale: float) -> np.ndarray:
    """Crop the face from the released photo, `scale` times as large, as it was cropped from the original."""
    return detection.cut(released, spot.scaled(scale).transform, *spot.crop.shape[:2])


def tell_worst(table: pd.DataFrame) -> str:
    """Name the highest rate in the table of `measure`, original faces apart; empty if nothing was attacked."""
    attacked = table.dropna(subset=["rate"])
    attacked = attacked[attacked["what is attacked"] != _ORIGINAL_FACE]
    if attacked.empty:
        return ""
    worst = attacked.loc[attacked["rate"].idxmax()]
    return (
        f"The attack in the report identifies up to {worst['rate']:.0%} of {int(worst['people'])} people "
        f"({worst['what is attacked']}); a blind guess {worst['chance']:.0%}."
    )


def tell_findings(table: pd.DataFrame) -> list[str]:
    """Describe the table of `measure` in sentences."""
    sentences = []
    for whose, rows in table.dropna(subset=["rate"]).groupby("attacker holds", sort=False):
        found = rows.set_index("what is attacked")
        if _SURROGATE in found.index:
            shared = found.loc[_SURROGATE]
            sentences.append(
                f"With {whose}, the shared surrogate identifies {shared['rate']:.0%} of "
                f"{int(shared['people'])} people; a blind guess identifies {shared['chance']:.0%}."
            )
        if _FACE not in found.index:
            continue
        face, context, whole = found.loc[_FACE], found.loc[_CONTEXT], found.loc[_FRAME]
        sentences.append(
            f"With {whose}, the released face identifies {face['rate']:.0%} of {int(face['people'])} people by "
            f"{face['compared by']}; hair, clothes and background without the face identify {context['rate']:.0%}, the "
            f"whole photo {whole['rate']:.0%}, a blind guess {face['chance']:.0%}."
        )
        above_chance = found["low"] > found["chance"]
        better = [words for words, what in _IN_WORDS.items() if above_chance[what]]
        sentences.append(
            f"This attacker beats chance with {', '.join(better)}."
            if better
            else "With this few people, none of the three differs from chance; that does not show that they are safe."
        )
    if "dlib" in set(table["compared by"]):
        sentences.append(
            "Faces were compared by dlib; a stronger recogniser finds more: run `make recogniser`."
        )
    return sentences
