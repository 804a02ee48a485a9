"""Summarise a run in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.formats import explain_unread, unread_kind
from release.journal import BLURRED, DAMAGED, FAILED, FILTERED, KEPT, REPLACED, SUPPRESSED, WRITTEN, Journal
from release.options import FolderOptions
from release.planning import Plan


def count(number: int, thing: str) -> str:
    """Return a number and what it counts: "1 photo", "2 photos"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def summarize(options: FolderOptions, journal: Journal, plan: Plan, others: Sequence[Path]) -> list[str]:
    """Summarise a run: photos, faces, people, what was left out, and what can be claimed.

    Parameters
    ----------
    options : FolderOptions
    journal : Journal
    plan : Plan
    others : sequence of Path
        Files in the folder that are not photos.
    """
    n_faces = sum(len(photo.spots) for photo in plan.photos)
    films = [record for record in journal.done.values() if "tracks" in record]
    looked_at = f"{count(len(plan.photos), 'photo')}, {count(n_faces, 'face')}"
    if options.k_anonymous:
        on_photos = (
            0 if plan.found is None else int((~plan.kept & (plan.found.photo < len(plan.photos))).sum())
        )
        n_tracks = sum(len(record["tracks"]) for record in films)
        in_films = f"; {count(len(films), 'video')}, {count(n_tracks, 'track')} of faces" if films else ""
        first = (
            f"{looked_at}, {on_photos} of which can be replaced{in_films}: {plan.n_people} people in "
            f"{count(len(plan.surrogates), 'cluster')} of at least {options.k}."
        )
    else:
        first = f"{looked_at}; --k is not used, as {options.method!r} needs no clusters."
    return [
        claim(options),
        first,
        *plan.notes,
        *(_of_photos(journal) if options.mode == "per_photo" else _of_surrogates(plan)),
        *(_of_videos(films) if films else ()),
        *(_of_given(options, plan) if plan.distances is not None else ()),
        *(_of_people(options, plan) if options.k_anonymous else ()),
        *of_failures(journal),
        *_of_the_rest(options, plan, journal, others),
    ]


def _of_photos(journal: Journal) -> list[str]:
    """Count the outcomes of faces and photos in per_photo mode."""
    faces = [face for record in journal.done.values() for face in record["faces"]]
    outcomes = Counter(face["outcome"] for face in faces)
    hidden = FILTERED if outcomes[FILTERED] else REPLACED
    n_written = sum(
        record["status"] == WRITTEN and "tracks" not in record for record in journal.done.values()
    )
    reasons = Counter(face["reason"] for face in faces if face["outcome"] == BLURRED)
    kept = f", {outcomes[KEPT]} {KEPT}" if outcomes[KEPT] else ""
    return [
        f"{count(outcomes[hidden], 'face')} {hidden}, {outcomes[BLURRED]} {BLURRED}{kept}; "
        f"{count(n_written, 'photo')} written.",
        *(f"Blurred out, {reason}: {number}." for reason, number in sorted(reasons.items())),
    ]


def _of_videos(films: Sequence[dict]) -> list[str]:
    """Count the outcomes of faces on the frames of videos."""
    outcomes, reasons = Counter(), Counter()
    for span in (span for film in films for track in film["tracks"] for span in track["spans"]):
        outcomes[span["outcome"]] += span["frames"]
        if span["outcome"] == BLURRED:
            reasons[span["reason"]] += span["frames"]
    replaced, n_faces = outcomes[REPLACED] / max(outcomes.total(), 1), count(outcomes.total(), "face")
    return [
        f"{count(len(films), 'video')} written: {replaced:.0%} of {n_faces} on frames replaced, "
        f"{outcomes[BLURRED]} {BLURRED}. Pose, light and movement follow each video.",
        *(f"Blurred out in videos, {reason}: {number}." for reason, number in sorted(reasons.items())),
    ]


def of_failures(journal: Journal) -> list[str]:
    """Count the photos and videos that were not released because of an error."""
    reasons = Counter(record["reason"] for record in journal.done.values() if record["status"] == FAILED)
    return [
        f"Not released, {reason}: {count(number, 'photo')}." for reason, number in sorted(reasons.items())
    ]


def _of_surrogates(plan: Plan) -> list[str]:
    """Count what was written in shared mode."""
    sentences = [f"{count(len(plan.surrogates), 'surrogate')} written, one copy per person, and no photos."]
    n_unused = sum(bool(spot.reason) for photo in plan.photos for spot in photo.spots)
    if n_unused:
        sentences.append(
            f"{count(n_unused, 'face')} not used: too small, turned away or at the edge of the photo."
        )
    return sentences


def _of_given(options: FolderOptions, plan: Plan) -> list[str]:
    """Say how sure it is which faces show the people of --keep or --only."""
    near, far = np.sort(plan.distances[plan.kept]), np.sort(plan.distances[~plan.kept])
    if options.given_by == "only":
        nearest = (
            f"; the nearest of them is at distance {near[0]:.2f} from the people to replace"
            if len(near)
            else ""
        )
        return [
            f"{count(len(far), 'face')} may show the people of --only and are hidden; {len(near)} {KEPT}{nearest}."
        ]
    surest = f", at distances up to {near[-1]:.2f}" if len(near) else ""
    other = f"; the nearest face that is hidden is at distance {far[0]:.2f}" if len(far) else ""
    return [f"{count(len(near), 'face')} {KEPT} for --keep{surest}{other}."]


def _of_people(options: FolderOptions, plan: Plan) -> list[str]:
    """Name how many groups of faces may be several people."""
    n_chained = sum(spread > options.same_person for spread in plan.spread.values())
    if not n_chained:
        return []
    return [
        f"{n_chained} of {len(plan.spread)} people may be several people who look alike, hidden as one; the report "
        "shows their faces."
    ]


def _of_the_rest(options: FolderOptions, plan: Plan, journal: Journal, others: Sequence[Path]) -> list[str]:
    """Report what was suppressed or left out, and what to check."""
    sentences = []
    if plan.found is not None and plan.is_empty and not plan.kept.all():
        told_apart = "1 person was" if plan.n_people == 1 else f"{plan.n_people} people were"
        sentences.append(
            f"Only {told_apart} told apart, fewer than k = {options.k}: all photos with their faces are suppressed, "
            "and the faces in videos blurred out. "
            "Add photos, or choose a smaller --k, or a --method that needs no clusters, such as mask."
        )
    n_faceless = sum(not (photo.spots or photo.damage or photo.failure) for photo in plan.photos)
    if n_faceless:
        is_kept = options.keep_faceless and options.mode == "per_photo"
        done = "kept, without metadata" if is_kept else SUPPRESSED
        sentences.append(f"{count(n_faceless, 'photo')} without a detected face: {done}.")
    damaged = [record["reason"] for record in journal.done.values() if record["status"] == DAMAGED]
    sentences += [f"Damaged: {damage}" for damage in damaged]
    sentences += [explain_unread(path) or f"Not an image: {path}" for path in others]
    kinds = Counter(["damaged file"] * len(damaged) + [unread_kind(path) or "other file" for path in others])
    if kinds:
        sentences.append(f"Left out: {', '.join(count(number, kind) for kind, number in kinds.items())}.")
    n_several = sum(photo.n_frames > 1 for photo in plan.photos)
    if n_several:
        sentences.append(
            f"{count(n_several, 'file')} with several images (frames, pages): the first or main one of each is used."
        )
    if plan.n_doubtful:
        sentences.append(
            f"{count(plan.n_doubtful, 'pair')} of people look alike but count as different; if a pair is one "
            "person, its cluster hides one person fewer. A larger --same-person joins them."
        )
    if options.mode == "per_photo":
        sentences.append("Check the result by eye: a face that no detector found is still visible.")
    return sentences


def claim(options: FolderOptions) -> str:
    """State what can be claimed for the result."""
    if not options.k_anonymous:
        return (
            f"Not k-anonymous: each face is changed separately ({options.method}), and recognisers trained on such "
            "images can identify the people. --mode shared with another method is k-anonymous."
        )
    if options.mode == "per_photo":
        return (
            "Not k-anonymous: surrogates are pasted into the photos (per_photo mode), and hair, clothes, background "
            "and pose can identify people. --mode shared is k-anonymous."
        )
    return f"At least {options.k} people share each image, provided that people were told apart correctly."
