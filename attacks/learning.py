"""Attackers who learn the method from images of people they know: parrot recognition and reversal.

The people they learn from and the people they identify are always different. A distance learned from few people can be
worse for strangers than the plain distance, so these attackers also learn how far to trust it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import checks
import intervals
import recognisers
import utils
from attacks.cases import (
    LEVELS,
    AttackResult,
    DescribedRelease,
    Gallery,
    Practice,
    are_behind,
    distances,
    members_of,
)
from attacks.search import Ranking

#: Distances between images (c, d) and photos (g, d): (c, g).
Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]

#: Learns a distance from images and original photos of the same people.
_Learn = Callable[[Practice, Gallery, np.random.RandomState], Measure]

#: Candidate shares of the learned distance in a mixture with the plain distance, and the share if there are too few
#: people to choose.
_BLENDS, _UNTRIED_BLEND = (0.0, 0.25, 0.5, 0.75, 1.0), 0.5

#: Principal components of pixels that attackers learn from.
_PIXEL_COMPONENTS = 50

#: At most this many pairs of each kind train the support vector machine.
_TRAINING_PAIRS = 2000

#: Pairs that it judges at once.
_PAIRS_AT_ONCE = 50_000


def learned(
    release: DescribedRelease,
    gallery: Gallery,
    practice: Practice | None = None,
    *,
    method: str = "parrot",
    learn: _Learn | None = None,
    n_splits: int = 20,
    random_state=0,
) -> list[AttackResult]:
    """Search with a distance that was learned from anonymized images and original photos of other people.

    Threat model: the attacker anonymizes people they know with the method under attack, and learns from these images.
    They never identify the people they learned from: half of the clusters (or of the people, if images are not shared)
    belong to the attacker, and the other half is attacked, in `n_splits` random splits; every second split swaps the
    halves of the previous split. A generator that was fitted to all people counts as public.

    Parameters
    ----------
    release : DescribedRelease
    gallery : Gallery
        Original photos of everyone.
    practice : Practice, optional
        Further images that the attacker made. In each split they learn from images whose members are all on their side,
        and from the release's own images on that side.
    method : str, default "parrot"
        One of `LEARNERS`:

        - ``"parrot"``: linear discriminants of descriptors that bring images and original photos of their members
          together, and separate people.
        - ``"parrot pairs"``: a linear support vector machine on principal components, meant for pixels. It separates
          pairs of an image and a photo of a member from other pairs by absolute differences, distance and cosine.
        - ``"reversal"``: ridge regression from an image to the difference between the mean of its members' original
          photos and the image; leave-one-out chooses the strength.
        - ``"reversal pixels"``: the same on principal components of pixels, searched with Fisherfaces of the attacker's
          people.
    learn : callable, optional
        Replaces the attacker's method; `method` is then only its name. Takes a `Practice`, a `Gallery` of the same
        people and a RandomState; returns a function that maps descriptors of images (c, d) and photos (g, d) to
        distances (c, g).
    n_splits : int, default 20
    random_state : int, RandomState or None, default 0
        Chooses the halves.

    Returns
    -------
    list of AttackResult
        Rank 1 at both levels among the attacked people, who are half of the gallery. The note gives the rate of the
        plain distance in the same halves for comparison.

    Raises
    ------
    NotApplicableError
        With fewer than four clusters.
    """
    if learn is None:
        checks.check_known("method", method, LEARNERS)
        learn = LEARNERS[method]
    checks.check_number("n_splits", n_splits, int, at_least=1)
    random = utils.check_random_state(random_state)
    cases, people = release.cases, gallery.people
    gallery.check_holds(cases["person"])
    groups = np.unique(cases["group"])
    if len(groups) < 4:
        raise checks.NotApplicableError(f"attacker and attacked need at least 4 clusters, got {len(groups)}")
    made = _all_practice(release, practice)
    image, group, person = (cases[name].to_numpy() for name in ("image", "group", "person"))
    # The person of each case, and all people behind its image. (m, p)
    behind = members_of(cases, people, len(release.descriptors))[image]
    wanted = {"person": person.astype(str)[:, None] == people, "cluster": behind}
    tried = np.zeros(len(cases))
    hits, plain = ({level: np.zeros(len(cases)) for level in LEVELS} for _ in range(2))
    blind = {level: [] for level in LEVELS}
    for split in range(n_splits):
        # Draw a half, or swap sides so that everyone is attacked.
        if split % 2 == 0:
            order, half = random.permutation(groups), len(groups) // 2
        known = np.isin(group, order[:half] if split % 2 == 0 else order[half:])
        # Learn from the attacker's people.
        attackers = frozenset(person[known])
        measure = learn(made.among(attackers), gallery.of_people(attackers), random)
        # Search for the others, with the learned and with the plain distance.
        places = np.flatnonzero(~known)
        images, row = np.unique(image[places], return_inverse=True)
        photos = gallery.of_people(person[places])
        sought = {level: wanted[level][places][:, np.isin(people, photos.people)] for level in LEVELS}
        for compare, counts in ((measure, hits), (distances, plain)):
            to_people = photos.person_distances(compare(release.descriptors[images], photos.descriptors))
            for level in LEVELS:
                counts[level][places] += Ranking.of(to_people[row], sought[level]).hits(1)
        for level in LEVELS:
            blind[level].append(sought[level].sum(axis=1).mean() / len(photos.people))
        tried[places] += 1
    reached = tried > 0
    results = []
    for level in LEVELS:
        table = cases[reached].assign(success=hits[level][reached] / tried[reached])
        before = (plain[level][reached] / tried[reached])[~table["failed"].to_numpy()]
        note = f"half of the people, mean of {n_splits} halves; untrained {intervals.mean(before):.3f}"
        if not reached.all():
            note += f"; {(~reached).sum()} people were never attacked"
        chance = float(np.mean(blind[level]))
        results.append(AttackResult.of_cases(method, level, table, chance, random, note))
    return results


def _all_practice(release: DescribedRelease, practice: Practice | None) -> Practice:
    """Join the attacker's images with the release's own, of which they may know all members."""
    members = tuple(release.cases.groupby("image")["person"].agg(frozenset))
    apart = tuple(release.cases.groupby("group")["person"].agg(frozenset))
    if practice is None:
        return Practice(release.descriptors, members, apart)
    both = np.concatenate([practice.descriptors, release.descriptors])
    return Practice(both, (*practice.members, *members), apart)


# ---- trust in the learned distance ----


def _blended(learn: _Learn) -> _Learn:
    """Mix the learned distance with the plain distance, as far as it helps with the attacker's own people.

    The attacker learns from half of their people and tests on the other half, and vice versa. They choose the mixture
    of standardised distances that ranks the fewest other people before the first member of an image. If a smaller
    share of the learned distance is as good within one standard error, they choose that share.
    """

    def learn_blend(practice: Practice, gallery: Gallery, random) -> Measure:
        share = _best_blend(learn, practice, gallery, random)
        measure = learn(practice, gallery, random) if share else distances
        return lambda a, b: _mixture(distances(a, b), measure(a, b), share)

    return learn_blend


def _mixture(plain: np.ndarray, trained: np.ndarray, share: float) -> np.ndarray:
    plain, trained = ((values - values.mean()) / (values.std() or 1.0) for values in (plain, trained))
    return (1 - share) * plain + share * trained


def _best_blend(learn: _Learn, practice: Practice, gallery: Gallery, random) -> float:
    middle = len(practice.apart) // 2
    halves = [frozenset().union(*part) for part in (practice.apart[:middle], practice.apart[middle:])]
    losses = [[] for _ in _BLENDS]
    for taught, tried in (halves, halves[::-1]):
        lesson, test = practice.among(taught), practice.among(tried)
        if lesson is None or test is None:
            return _UNTRIED_BLEND
        photos = gallery.of_people(tried)
        try:
            measure = learn(lesson, gallery.of_people(taught), random)
        except (checks.NotApplicableError, recognisers.UnfitGalleryError):
            return _UNTRIED_BLEND
        parts = [one(test.descriptors, photos.descriptors) for one in (distances, measure)]
        behind = are_behind(test.members, photos.people)  # (m, p)
        for share, loss in zip(_BLENDS, losses, strict=True):
            loss += _ahead(photos.person_distances(_mixture(*parts, share)), behind)
    table = np.array(losses)  # (blends, images)
    if not table.shape[1]:
        return _UNTRIED_BLEND
    # Take the smallest share within one standard error of the best.
    more = table - table[table.mean(axis=1).argmin()]
    as_good = more.mean(axis=1) <= more.std(axis=1) / np.sqrt(table.shape[1])
    return _BLENDS[int(as_good.argmax())]


def _ahead(to_people: np.ndarray, behind: np.ndarray) -> list[float]:
    """Share of other people ranked before the first member of each image; ties count half.

    Takes distances (m, p) and who is behind each image, bool (m, p). An image of everyone is left out.
    """
    first = np.where(behind, to_people, np.inf).min(axis=1, keepdims=True)  # (m, 1)
    before = ((to_people < first) + (to_people == first) / 2) * ~behind
    others = (~behind).sum(axis=1)
    return (before.sum(axis=1)[others > 0] / others[others > 0]).tolist()


# ---- learned distances ----


def _learn_discriminants(practice: Practice, gallery: Gallery, random) -> Measure:
    # Repeat each image for each of its members, and fit the space to the images and the photos.
    rows = np.repeat(np.arange(len(practice.members)), [len(members) for members in practice.members])
    names = np.array([person for members in practice.members for person in sorted(members)])
    space = recognisers.WithinSpace.fit(
        np.concatenate([gallery.descriptors, practice.descriptors[rows]]),
        np.concatenate([gallery.identities, names]),
    )
    return lambda a, b: distances(space.transform(a), space.transform(b))


def _fit_components(gallery: Gallery, practice: Practice) -> Callable[[np.ndarray], np.ndarray]:
    """Fit principal components to photos and images: returns the projection (n, d) -> (n, r)."""
    both = np.concatenate([gallery.descriptors, practice.descriptors])
    mean, axes = recognisers.principal_axes(both, _PIXEL_COMPONENTS)
    if axes.shape[1] == 0:
        raise checks.NotApplicableError("the attacker needs photos and images that differ")
    return lambda descriptors: (descriptors - mean) @ axes


def _learn_pairs(practice: Practice, gallery: Gallery, random) -> Measure:
    from sklearn.pipeline import make_pipeline  # slow to import, like all of scikit-learn
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    # Project images (m, r) and photos (g, r).
    project = _fit_components(gallery, practice)
    images, photos = project(practice.descriptors), project(gallery.descriptors)
    # Choose pairs of an image and a photo of a member, and other pairs.
    genuine = are_behind(practice.members, gallery.identities)  # (m, g)
    chosen = []
    for kind in (genuine, ~genuine):
        pairs = np.argwhere(kind)
        if len(pairs) > _TRAINING_PAIRS:
            pairs = pairs[random.choice(len(pairs), _TRAINING_PAIRS, replace=False)]
        chosen.append(pairs)
    if not all(map(len, chosen)):
        raise checks.NotApplicableError("the attacker needs more clusters to learn from pairs of both kinds")
    pairs = np.concatenate(chosen)
    # Train the support vector machine on these pairs.
    machine = make_pipeline(
        StandardScaler(), LinearSVC(C=1e-3, class_weight="balanced", dual="auto", random_state=0)
    )
    labels = np.repeat([True, False], [len(kind) for kind in chosen])
    machine.fit(_pair_features(images[pairs[:, 0]], photos[pairs[:, 1]]), labels)

    def measure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = project(a), project(b)
        parts = np.array_split(a, -(-len(a) * len(b) // _PAIRS_AT_ONCE))
        return np.concatenate([_decide(machine, part, b) for part in parts])

    return measure


def _decide(machine, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far a machine thinks each pair is from being of one person: (c, r), (g, r) -> (c, g)."""
    pairs = _pair_features(np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1)))  # (c * g, r + 2)
    return -machine.decision_function(pairs).reshape(len(a), len(b))


def _pair_features(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Differences of each component, distance, and cosine of pairs: (m, r) twice -> (m, r + 2)."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return np.column_stack([np.abs(a - b), np.linalg.norm(a - b, axis=1), cosine])


def _learn_reversal(practice: Practice, gallery: Gallery, random) -> Measure:
    reverse = _fit_reversal(practice.descriptors, practice.members, gallery)
    return lambda a, b: distances(reverse(a), b)


def _fit_reversal(images: np.ndarray, members, gallery: Gallery) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a ridge regression from images (m, d) to the means of their members' photos.

    Stronger regularisation changes an image less.
    """
    from sklearn.linear_model import Ridge, RidgeCV

    # Average the photos of each person (p, d), and the people behind each image (m, d).
    people, person = np.unique(gallery.identities, return_inverse=True)
    means = np.zeros((len(people), gallery.descriptors.shape[1]))
    np.add.at(means, person, gallery.descriptors)
    means /= np.bincount(person)[:, None]
    target = np.stack([means[rows].mean(axis=0) for rows in are_behind(members, people)])
    # Regress the difference between these means and the images, with a strength in proportion to the variance.
    spread = max(float(images.var(axis=0).sum()), 1e-12)
    ridge = RidgeCV(alphas=spread * np.logspace(-3, 3, 13))
    if len(images) < 3:  # with one of two images left out, all strengths give the same fit
        ridge = Ridge(alpha=spread)
    # Fit in the space of the m differences, which keeps all errors and takes a fraction of the time.
    axes, differences = np.linalg.qr((target - images).T)  # (d, m), (m, m)
    fitted = ridge.fit(images, differences.T)
    return lambda a: a + fitted.predict(a).reshape(len(a), -1) @ axes.T


def _learn_pixel_reversal(practice: Practice, gallery: Gallery, random) -> Measure:
    project = _fit_components(gallery, practice)
    photos = Gallery(project(gallery.descriptors), gallery.identities, gallery.kind)
    reverse = _fit_reversal(project(practice.descriptors), practice.members, photos)
    try:
        space = recognisers.DiscriminantSpace.fit(photos.descriptors, photos.identities)
    except recognisers.UnfitGalleryError as error:
        raise checks.NotApplicableError(f"Fisherfaces of the attacker's people: {error}") from error
    return lambda a, b: distances(space.transform(reverse(project(a))), space.transform(project(b)))


#: Name -> learner of a distance, see `learned`.
LEARNERS: dict[str, _Learn] = {
    "parrot": _blended(_learn_discriminants),
    "parrot pairs": _blended(_learn_pairs),
    "reversal": _blended(_learn_reversal),
    "reversal pixels": _blended(_learn_pixel_reversal),
}
