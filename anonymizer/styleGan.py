# ruff: noqa: N999  (the module's name is the project's)
"""AnonFACES: surrogates that StyleGAN draws from a mixture of the members' W+ codes.

Le et al., "AnonFACES: Anonymizing Faces Adjusted to Constraints on Efficacy and Security", WPES 2020. The paper has
three ways of mixing: the mean (*Naive*), the mean shrunk until few enough members are re-identified (*Weight
Adjusted*), and a mean with random weights (*Random Weight*). The released code shrinks codes towards w = 0, which is
not a meaningful face, and decides for the whole data set at once. By default, we shrink codes towards the network's
average face, cluster by cluster. ``as_published=True`` reproduces the released code, to explain the published curves.

The package `stylegan` is imported inside functions because it loads TensorFlow, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

import detection
import embedding
import utils
from anonymizer.base import Surrogates
from checks import Number, check, check_array, check_known, check_number
from datasets import Faces

#: Factor by which each round of adjustment shrinks codes, as in the released code.
_FACTOR = 0.8
#: Maximum number of rounds of an adjustment; codes are then at 7 % of their distance from the average.
_MAX_ROUNDS = 12
#: Range of the random weights, and the factor that scales their mixture, as in the released experiments.
_WEIGHT_RANGE, _SCALE = (0.6, 1.0), 1.67
#: Number of random weightings to try for a cluster.
_MAX_DRAWS = 6
#: Layers of at least this resolution count as fine (StyleGAN paper, section 3.1).
_FINE_FROM = 64

#: Number of photos that are encoded at once.
_BATCH = 64

_BUNDLED = Path(__file__).resolve().parents[1] / "stylegan" / "cache"

_TARGET_MET = "target met"
_ROUNDS_SPENT = "target not met within the maximum number of rounds; the best one is kept"
_NOT_ADJUSTED = "not adjusted"


@dataclass(frozen=True, eq=False)
class Mixture:
    """How the surrogate of a cluster was mixed.

    Attributes
    ----------
    code : ndarray of float32, shape (num_layers, w_dim)
    image : ndarray of uint8, shape (h, w, 3)
    strength : float
        Kept share of the way from the network's average (as published: from w = 0) to the mean.
    reason : str
        Why the adjustment stopped.
    trace : list of dict
        One row per round, ``round strength information_loss re_identification found``; empty without adjustment. Loss
        and re-identification are over the cluster's photos; NaN and 0 if no face was found.
    """

    code: np.ndarray
    image: np.ndarray
    strength: float = 1.0
    reason: str = _NOT_ADJUSTED
    trace: list[dict] = field(default_factory=list)


class StyleMixing(Surrogates):
    """Surrogates from StyleGAN.

    Parameters
    ----------
    faces : Faces
    network : str or Path, optional
        A file for `stylegan.load_network`; by default the bundled network that fits the faces: in grey for the
        ORL people, whom it knows, and in colour for all others.
    codes : str, Path or array, optional
        W+ codes of the photos: a folder of ``.npy`` files named after the photos (see ``python -m stylegan project``),
        or an array (n, num_layers, w_dim). By default, codes come from the file next to the network for its training
        photos (``NAME-codes.npz``), and from its encoder for all others (``NAME-encoder.npz``); without an encoder,
        from the folder ``datasets/stylegan_data/latent_vectors/SOURCE``. Photos are recognised by their pixels: codes
        of other photos with the same names are refused.
    mix : {"mean", "adjusted", "random"}
        See the module's docstring. The last two aim at a re-identification rate of at most 1/k in each cluster.
    as_published : bool, default False
        Mix as the released code does.
    strength : float, default 1.0
        Share of the way from the network's average to the mixture, 0 to 2: 0 gives everyone the average face.
    photo_layers : sequence of int, optional
        Layers taken from the photo that a surrogate follows (`like`). By default the fine layers, which carry
        light, colour and texture: those of at least 64 pixels, and at least the last two.
    threshold : float, default 0.6
        Distance of dlib's descriptors below which the adjustments count a member as re-identified.
    random_state : int, RandomState or None, default 0
        Seed for the random weights.

    Attributes
    ----------
    codes : ndarray of float32, shape (n, num_layers, w_dim)

    Raises
    ------
    FileNotFoundError
        If the network does not exist, or has neither an encoder nor codes.
    ValueError
        If an option is out of range, or the codes do not match the network or were made for other photos.
    """

    name = "stylegan"
    files = MappingProxyType(
        {"network": tuple(_BUNDLED / name for name in ("orl128.npz", "orl128-codes.npz", "orl128-encoder.npz",
                                                       "colour128.npz", "colour128-encoder.npz")), "codes": ()}
    )  # fmt: skip

    def __init__(
        self,
        faces: Faces,
        network: str | Path | None = None,
        codes: str | Path | np.ndarray | None = None,
        mix: str = "mean",
        as_published: bool = False,
        strength: float = 1.0,
        photo_layers: Sequence[int] | None = None,
        threshold: float = embedding.PAPER_THRESHOLD,
        random_state=0,
    ):
        super().__init__(faces)
        check_known("mix", mix, _MIXES)
        self.mix, self.as_published = mix, bool(as_published)
        self.strength = float(check_number("strength", strength, at_least=0, at_most=2))
        self.threshold = float(check_number("threshold", threshold, above=0))
        self._seed = int(utils.check_random_state(random_state).randint(2**31 - 1))
        self._mixtures: dict[tuple, Mixture] = {}

        import stylegan

        self.network_path = Path(stylegan.bundled_for(faces) if network is None else network)
        # Loading explains why a file is missing.
        content = self.network_path.read_bytes() if self.network_path.is_file() else b""
        self._network_key = utils.content_key(content)
        self.network = _shared_network(self.network_path, self._network_key)
        n_layers = self.network.num_layers
        if photo_layers is None:
            sides = np.repeat(self.network.architecture.resolutions, 2)  # two layers per resolution
            photo_layers = [i for i in range(n_layers) if sides[i] >= _FINE_FROM or i >= n_layers - 2]
        rule = Number(int, at_least=0, below=n_layers)
        self.photo_layers = sorted({int(check("photo_layers", layer, rule)) for layer in photo_layers})
        self._reach = float(self.network.description.get("reach", np.inf))
        self.codes = self._find_codes(codes)

    def _options(self) -> dict:
        return {
            "network": self._network_key,
            "codes": self.codes,
            "mix": [self.mix, self.as_published, self.strength, self.threshold, self._seed],
            "photo_layers": self.photo_layers,
        }

    # Codes of the photos

    def _find_codes(self, given: str | Path | np.ndarray | None) -> np.ndarray:
        """Find the W+ codes (n, num_layers, w_dim): given, next to the network, from its encoder, or in a folder."""
        from stylegan import code_folder

        if given is None:
            encoder, given = _beside(self.network_path, "encoder"), code_folder.CODES / self.faces.source
            if encoder.is_file():
                return self._known_or_encoded()
            if not code_folder.read_photo_keys(given):
                raise FileNotFoundError(
                    f"the network {self.network_path.name} has no W+ codes for these photos: neither an encoder "
                    f"({encoder.name}) nor a folder {given.name} in {given.parent.name} that says for which photos its "
                    "codes were made; make codes with: "
                    "python -m stylegan project PHOTOS OUT --network FILE, and pass codes='OUT'"
                )

        if isinstance(given, str | Path):
            return code_folder.read_codes(Path(given), self.faces.names, self.network, self.faces.image_keys)
        return self._checked_codes(given)

    def _checked_codes(self, codes) -> np.ndarray:
        shape = (len(self.faces), self.network.num_layers, self.network.w_dim)
        return check_array("codes", codes, shape).copy()

    def _known_or_encoded(self) -> np.ndarray:
        """Take the codes stored next to the network for its training photos, and encode all other photos."""
        from stylegan import alignment, code_folder, encoder

        shape = (self.network.num_layers, self.network.w_dim)
        code_of = code_folder.read_kept_codes(
            _beside(self.network_path, "codes"), self.network.description.get("dataset"), shape
        )
        keys, blank = self.faces.image_keys, np.zeros(shape, dtype=np.float32)
        codes = np.stack([code_of.get(key, blank) for key in keys])
        others = [i for i, key in enumerate(keys) if key not in code_of]
        path = _beside(self.network_path, "encoder")
        load = cache(encoder.load_encoder)  # only if a photo is new, and once for all batches

        def encode(positions: list[int]) -> np.ndarray:
            rows = [others[position] for position in positions]
            aligned = alignment.align(
                [self.faces.images[i] for i in rows], self.landmarks[rows], self.network
            )
            found = load(path).encode(aligned.images, aligned.landmarks)
            return found.reshape(len(rows), -1)

        if others:
            made_by = utils.content_key(self._network_key, path.read_bytes(), self.code_key())
            place = f"codes-{made_by[:16]}"
            places = [utils.content_key(keys[i], self.landmarks[i]) for i in others]
            found = utils.cached_batches(place, places, encode, "encoding faces (stylegan)", _BATCH)
            codes[others] = np.reshape(found, (-1, *shape))
        return self._checked_codes(codes)

    # Drawing

    def draw(self, code: np.ndarray) -> np.ndarray:
        """Draw one code (num_layers, w_dim), cropped to the size of a photo: uint8 (h, w, 3)."""
        import stylegan

        return self.cut(stylegan.to_uint8(self.network.synthesis(code[None]))[0])

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Return the part of the network's output (r, r, 3) that the photo fills: (h, w, 3)."""
        top, left, height, width = self.network.description.get("frame") or (0, 0, *picture.shape[:2])
        return np.ascontiguousarray(picture[top : top + height, left : left + width])

    def towards_average(self, code: np.ndarray, strength: float) -> np.ndarray:
        """Shrink codes (..., w_dim) towards the network's average face: float32."""
        average = self.network.average
        return (average + strength * (code - average)).astype(np.float32)

    def mean_code(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted mean of the members' codes, shrunk by `strength`: float32 (num_layers, w_dim).

        A network for other people records up to which distance from the average it draws faces (``reach``). Means of
        two people may lie farther away, and are moved to this distance.
        """
        code = self.towards_average(self.weighted_sum(members, weights), self.strength)
        distance = np.linalg.norm(code - self.network.average, axis=1).max()
        return code if distance <= self._reach else self.towards_average(code, self._reach / distance)

    def weighted_sum(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted sum of the members' codes: float64 (num_layers, w_dim)."""
        return np.tensordot(weights, self.codes[members].astype(np.float64), axes=1)

    # Surrogates

    def mixture(self, members: Sequence[int], weights: Sequence[float] | None = None) -> Mixture:
        """Return how the surrogate of a cluster was mixed; parameters as for `surrogate`."""
        return self._mixture(*self._checked_members(members, weights))

    def _mixture(self, members: np.ndarray, weights: np.ndarray) -> Mixture:
        key = _key(members, weights)
        if key not in self._mixtures:
            registry = _AS_PUBLISHED if self.as_published else _MIXES
            self._mixtures[key] = registry[self.mix](self, members, weights)
        return self._mixtures[key]

    def _mix(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return self._mixture(members, weights).image

    def _mix_like(self, members: np.ndarray, weights: np.ndarray, like: int) -> np.ndarray:
        import stylegan

        mixed = self._mixture(members, weights).code
        return self.draw(stylegan.mix_styles(mixed, self.codes[like], self.photo_layers))

    def surrogates(self, clusters: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Make the faces of all clusters of a release.

        The published adjustment decides for all clusters at once, by the rate over the whole data set.
        """
        if not (self.as_published and self.mix == "adjusted"):
            return super().surrogates(clusters)
        checked = [self._checked_members(members, None) for members in clusters]
        mixtures = _adjust_as_published(self, checked)
        for (members, weights), mixture in zip(checked, mixtures, strict=True):
            self._mixtures[_key(members, weights)] = mixture
        return [mixture.image for mixture in mixtures]

    # Measurements for the adjustments

    @cached_property
    def descriptors(self) -> np.ndarray:
        """Descriptors of the photos by dlib: float32 (n, 128)."""
        return embedding.embed(self.faces, "dlib")

    def distances(self, image: np.ndarray, members: np.ndarray) -> np.ndarray | None:
        """Distances from a surrogate to its members (m,); None if no face is found in it."""
        if not detection.detect([image]).found[0]:
            return None
        return np.linalg.norm(embedding.embed([image], "dlib")[0] - self.descriptors[members], axis=1)


def _key(members: np.ndarray, weights: np.ndarray) -> tuple:
    return (members.tobytes(), weights.tobytes())


@lru_cache(maxsize=2)
def _shared_network(path: Path, key: str):
    """Load the network with this content key, once for all models: to prepare it for drawing takes a second."""
    import stylegan

    return stylegan.load_network(path)


def _beside(network: Path, what: str) -> Path:
    return network.with_name(f"{network.stem}-{what}.npz")


# ----------------------------------------------------------------------------------------------------------
# Ways of mixing: (model, members (m,), weights (m,)) -> Mixture
# ----------------------------------------------------------------------------------------------------------


def _mean(model: StyleMixing, members: np.ndarray, weights: np.ndarray) -> Mixture:
    code = model.mean_code(members, weights)
    return Mixture(code, model.draw(code), model.strength)


def _adjusted(model: StyleMixing, members: np.ndarray, weights: np.ndarray) -> Mixture:
    """Shrink the mean towards the average face, by a fifth per round, until the cluster's own rate is at most 1/k."""
    code = model.mean_code(members, weights)
    strengths = _FACTOR ** np.arange(_MAX_ROUNDS + 1)
    return _search(model, members, ((float(s), model.towards_average(code, s)) for s in strengths))


def _random(model: StyleMixing, members: np.ndarray, weights: np.ndarray) -> Mixture:
    """Weight the members' differences from the average face at random; repeat until the rate is at most 1/k.

    The scale exaggerates the mixture beyond the members, by 1.67 * 0.8 = 1.34 on average.
    """

    def candidates():
        for number in range(_MAX_DRAWS):
            drawn = weights * _random_weights(model, members, number)
            strength = _SCALE * drawn.sum()
            mean = model.mean_code(members, drawn / drawn.sum())
            yield float(strength), model.towards_average(mean, strength)

    return _search(model, members, candidates())


def _random_weights(model: StyleMixing, members: np.ndarray, number: int) -> np.ndarray:
    """Weights (m,) of draw `number` for a cluster; they depend only on the cluster and the seed."""
    random = np.random.default_rng([model._seed, number, *members.tolist()])
    return random.uniform(*_WEIGHT_RANGE, size=len(members))


@dataclass(frozen=True, eq=False)
class _Round:
    """One round of an adjustment: a code, its image, and its row of the trace."""

    code: np.ndarray
    image: np.ndarray
    near: np.ndarray  # bool (m,): the members that the image matches; all False if it shows no face
    row: dict


def _draw_round(model: StyleMixing, members: np.ndarray, number: int, strength: float, code) -> _Round:
    """Draw a code, and measure its distances to the members (m,)."""
    image = model.draw(code)
    distances = model.distances(image, members)
    found = distances is not None
    near = distances < model.threshold if found else np.zeros(len(members), dtype=bool)
    row = {
        "round": number,
        "strength": strength,
        "information_loss": float(distances.mean()) if found else float("nan"),
        "re_identification": float(near.mean()),
        "found": found,
    }
    return _Round(code, image, near, row)


def _search(
    model: StyleMixing, members: np.ndarray, candidates: Iterable[tuple[float, np.ndarray]]
) -> Mixture:
    """Try each (strength, code) in turn until at most 1/k of the members are re-identified.

    k is the number of people among the members. If no candidate meets the target, keep the best: prefer one with a
    face, then the fewest re-identified members, then the lowest loss.
    """
    target = 1 / len(np.unique(model.faces.identities[members]))
    rounds, reason = [], _ROUNDS_SPENT
    for number, (strength, code) in enumerate(candidates):
        rounds.append(_draw_round(model, members, number, strength, code))
        row = rounds[-1].row
        if row["found"] and row["re_identification"] <= target:
            reason = _TARGET_MET
            break
    best = min(
        rounds, key=lambda r: (not r.row["found"], r.row["re_identification"], r.row["information_loss"])
    )
    return _as_mixture(best, reason, rounds)


# ----------------------------------------------------------------------------------------------------------
# The same, as in the released code
# ----------------------------------------------------------------------------------------------------------


def _as_mixture(best: _Round, reason: str, rounds: Sequence[_Round]) -> Mixture:
    return Mixture(best.code, best.image, best.row["strength"], reason, [one.row for one in rounds])


def _random_as_published(model: StyleMixing, members: np.ndarray, weights: np.ndarray) -> Mixture:
    """Weight the codes themselves at random, so that the mean moves away from w = 0."""
    drawn = weights * _random_weights(model, members, 0)
    code = (_SCALE * model.weighted_sum(members, drawn)).astype(np.float32)
    return Mixture(code, model.draw(code), float(_SCALE * drawn.sum()))


def _adjust_as_published(
    model: StyleMixing, clusters: Sequence[tuple[np.ndarray, np.ndarray]]
) -> list[Mixture]:
    """Adjust all clusters together, towards w = 0, until the data set's rate is at most 1/k.

    In every round a common factor falls by a fifth. Clusters with a re-identified member are drawn again, and the
    codes of those members shrink by another fifth. The released loop never ends if the face at w = 0 is itself close
    to many people; this one ends after `_MAX_ROUNDS`.

    Parameters
    ----------
    model : StyleMixing
    clusters : sequence of (members, weights)

    Returns
    -------
    list of Mixture
        One per cluster; each trace holds the rounds in which the cluster was drawn.
    """
    k = min(len(np.unique(model.faces.identities[members])) for members, _ in clusters)

    def draw(number: int, alpha: float, members: np.ndarray, shares: np.ndarray) -> _Round:
        code = (alpha * model.weighted_sum(members, shares)).astype(np.float32)
        return _draw_round(model, members, number, alpha, code)

    drawn = [[draw(0, 1.0, *cluster)] for cluster in clusters]  # the rounds of each cluster
    reason, alpha = _TARGET_MET, 1.0
    for number in range(1, _MAX_ROUNDS + 2):
        if np.concatenate([rounds[-1].near for rounds in drawn]).mean() <= 1 / k:
            break
        if number > _MAX_ROUNDS:
            reason = "the published loop was stopped: target not met within the maximum number of rounds"
            break
        alpha *= _FACTOR
        for (members, weights), rounds in zip(clusters, drawn, strict=True):
            near = rounds[-1].near
            if near.any():
                rounds.append(draw(number, alpha, members, weights * np.where(near, _FACTOR, 1.0)))
    return [_as_mixture(rounds[-1], reason, rounds) for rounds in drawn]


#: Ways of mixing codes by name, and what the released code does under the same name.
_MIXES: dict[str, Callable] = {"mean": _mean, "adjusted": _adjusted, "random": _random}
_AS_PUBLISHED: dict[str, Callable] = {
    "mean": _mean,
    "adjusted": lambda model, *cluster: _adjust_as_published(model, [cluster])[0],
    "random": _random_as_published,
}
