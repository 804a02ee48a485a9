# ruff: noqa: N999  (the module's name is the project's)
"""AnonFACES: surrogates drawn by StyleGAN for a mixture of the members' W+ codes.

Le et al., "AnonFACES: Anonymizing Faces Adjusted to Constraints on Efficacy and Security", WPES 2020. Three ways of
mixing are theirs: the mean (*Naive*), the mean shrunk while too many members are re-identified (*Weight Adjusted*), and
a mean with random weights (*Random Weight*). Their released code shrinks towards w = 0, which is no face in particular,
and decides for the whole data set at once; here codes shrink towards the network's average face, cluster by cluster.
``as_published=True`` gives the other, so that the published curves can be explained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

import detection
import embedding
import utils
from anonymizer.base import Surrogates
from datasets import Faces

#: The bundled network; the package that reads it takes seconds to import, so it is not asked here.
BUNDLED = Path(__file__).resolve().parents[1] / "stylegan" / "cache" / "orl128.npz"

#: Where codes are looked for, a folder for each source of faces.
CODES = Path(__file__).resolve().parents[1] / "datasets" / "stylegan_data" / "latent_vectors"

#: The paper's threshold for dlib's descriptors (section 4.2), by which the adjustments decide.
THRESHOLD = 0.6
#: By how much one round of adjustment shrinks, as in the released code.
FACTOR = 0.8
#: Rounds after which an adjustment gives up; the codes are then at 7 % of their distance from the average.
MAX_ROUNDS = 12
#: Range of the random weights, and what their mixture is multiplied by, as in the released experiments.
WEIGHT_RANGE, SCALE = (0.6, 1.0), 1.67
#: Random weightings that are tried for a cluster.
MAX_DRAWS = 6

TARGET_MET = "target met"
ROUNDS_SPENT = "target not met within the bound of rounds; the best is kept"
NOTHING_TO_MEET = "not adjusted"


@dataclass(frozen=True, eq=False)
class Mixture:
    """How a cluster's surrogate came to be.

    Attributes
    ----------
    code : ndarray of float32, shape (num_layers, w_dim)
    image : ndarray of uint8, shape (h, w, 3)
    strength : float
        Share of the way from the network's average (published: from w = 0) to the mean that was kept.
    reason : str
        Why the adjustment stopped.
    trace : list of dict
        A row for each round: ``round strength information_loss re_identification found``; empty where nothing was
        adjusted. Loss and re-identification are over the cluster's photos; NaN and 0 where no face was found.
    """

    code: np.ndarray
    image: np.ndarray
    strength: float = 1.0
    reason: str = NOTHING_TO_MEET
    trace: list[dict] = field(default_factory=list)


class StyleMixing(Surrogates):
    """Surrogates from StyleGAN.

    Parameters
    ----------
    faces : Faces
    network : str or Path, optional
        A file for `stylegan.load_network`; by default the bundled one, which was trained on the ORL people.
    codes : str, Path or array, optional
        W+ codes of the photos: a folder of ``.npy`` files named as the photos (see ``python -m stylegan project``), or
        an array (n, num_layers, w_dim). By default those kept beside the network (``NAME-codes.npz``: the photos it was
        trained on), from its encoder (``NAME-encoder.npz``) for all others; without an encoder the folder
        ``datasets/stylegan_data/latent_vectors/SOURCE``.
    mix : {"mean", "adjusted", "random"}
        See the module's description. The last two aim at a re-identification rate of at most 1/k in each cluster.
    as_published : bool, default False
        Mix as the released code does.
    strength : float, default 1.0
        Share of the way from the network's average to the mixture: 0 gives everybody the average face.
    photo_layers : sequence of int, optional
        Layers that come from the photo where a surrogate follows one (`like`); by default the fine ones, which carry
        light and colour, see `fine_layers`.
    threshold : float, default 0.6
        Distance of dlib's descriptors under which the adjustments count a member as re-identified.
    random_state : int, RandomState or None, default 0
        For random weights.

    Attributes
    ----------
    codes : ndarray of float32, shape (n, num_layers, w_dim)

    Raises
    ------
    FileNotFoundError
        If there is no network, or neither encoder nor codes for it.
    ValueError
        For options out of range, or codes that do not fit network and photos.
    """

    name = "stylegan"

    @classmethod
    def fits(cls, faces: Faces) -> bool:
        """Whether the bundled network, which was trained on the ORL people, can stand for these faces."""
        return faces.source == "orl" and BUNDLED.is_file() and _beside(BUNDLED, "encoder").is_file()

    def __init__(
        self,
        faces: Faces,
        network: str | Path | None = None,
        codes: str | Path | np.ndarray | None = None,
        mix: str = "mean",
        as_published: bool = False,
        strength: float = 1.0,
        photo_layers: Sequence[int] | None = None,
        threshold: float = THRESHOLD,
        random_state=0,
    ):
        super().__init__(faces)
        if mix not in MIXES:
            raise ValueError(f"unknown mix {mix!r}; there is {', '.join(map(repr, MIXES))}")
        if not isinstance(strength, int | float) or not 0 <= strength <= 2:
            raise ValueError(f"strength must be a number from 0 to 2, not {strength!r}")
        if not isinstance(threshold, int | float) or not threshold > 0:
            raise ValueError(f"threshold must be a number above 0, not {threshold!r}")
        self.mix, self.as_published = mix, bool(as_published)
        self.strength, self.threshold = float(strength), float(threshold)
        self.network_path = Path(BUNDLED if network is None else network)
        self._given_codes = codes
        self._seed = int(utils.check_random_state(random_state).randint(2**31 - 1))
        self._mixtures: dict[tuple, Mixture] = {}

        import stylegan  # loads TensorFlow, which takes seconds and the other anonymizers do without

        self.network = stylegan.load_network(self.network_path)
        chosen = fine_layers(self.network) if photo_layers is None else [int(layer) for layer in photo_layers]
        if any(not 0 <= layer < self.network.num_layers for layer in chosen):
            raise ValueError(
                f"photo_layers must be from 0 to {self.network.num_layers - 1}, not {sorted(chosen)}"
            )
        self.photo_layers = sorted(set(chosen))
        self.codes = self._find_codes()

    def _options(self) -> dict:

        return {
            "network": utils.content_key(self.network_path.read_bytes()),
            "codes": self.codes,
            "mix": [self.mix, self.as_published, self.strength, self.threshold, self._seed],
            "photo_layers": self.photo_layers,
        }

    # Codes of the photos

    def _find_codes(self) -> np.ndarray:
        """W+ codes (n, num_layers, w_dim) from where the options say."""
        given, folder = self._given_codes, CODES / self.faces.source
        if isinstance(given, str | Path):
            return self._read_codes(Path(given))
        if given is not None:
            return self._checked_codes(given)
        if _beside(self.network_path, "encoder").is_file():
            return self._known_or_encoded()
        if folder.is_dir():
            return self._read_codes(folder)
        raise FileNotFoundError(
            f"there are no W+ codes of these photos for the network {self.network_path.name}: neither its encoder "
            f"({_beside(self.network_path, 'encoder').name}) nor a folder {folder.name} in {CODES.name}; make "
            "them with: python -m stylegan project PHOTOS OUT --network FILE, and give codes='OUT'"
        )

    def _read_codes(self, folder: Path) -> np.ndarray:
        from stylegan import code_folder

        return code_folder.read_codes(folder, self.faces.names, self.network)

    def _checked_codes(self, codes) -> np.ndarray:
        codes = np.array(codes, dtype=np.float32)
        wanted = (len(self.faces), self.network.num_layers, self.network.w_dim)
        if codes.shape != wanted or not np.isfinite(codes).all():
            raise ValueError(f"codes must be finite numbers of the shape {wanted}, not {codes.shape}")
        return codes

    def _known_or_encoded(self) -> np.ndarray:
        """Codes kept beside the network where it knows the photos, and its encoder's for all others."""
        from stylegan import alignment, encoder

        names, kept = _kept_codes(_beside(self.network_path, "codes"), self.network)
        place = {str(name): i for i, name in enumerate(names)}
        known = self.faces.source == self.network.description.get("dataset")
        codes = np.zeros((len(self.faces), self.network.num_layers, self.network.w_dim), dtype=np.float32)
        others = []
        for i, name in enumerate(self.faces.names):
            if known and str(name) in place:
                codes[i] = kept[place[str(name)]]
            else:
                others.append(i)
        if others:
            images = [self.faces.images[i] for i in others]
            pictures = alignment.align(images, self.landmarks[others], self.network).images
            codes[others] = encoder.load_encoder(_beside(self.network_path, "encoder")).encode(pictures)
        return self._checked_codes(codes)

    # Drawing

    def draw(self, code: np.ndarray) -> np.ndarray:
        """Draw one code (num_layers, w_dim): uint8 (h, w, 3), cut to the photo."""
        import stylegan

        return self.cut(stylegan.to_uint8(self.network.synthesis(code[None]))[0])

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """The part of the network's picture (r, r, 3) that is the photo: (h, w, 3)."""
        top, left, height, width = self.network.description.get("frame") or (0, 0, *picture.shape[:2])
        return np.ascontiguousarray(picture[top : top + height, left : left + width])

    def towards_average(self, code: np.ndarray, strength: float) -> np.ndarray:
        """Shrink codes (..., w_dim) towards the network's average face: float32."""
        average = self.network.average
        return (average + strength * (code - average)).astype(np.float32)

    def mean_code(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted mean of the members' codes, shrunk by `strength`: float32 (num_layers, w_dim)."""
        mean = np.tensordot(weights, self.codes[members].astype(np.float64), axes=1)
        return self.towards_average(mean, self.strength)

    # Surrogates

    def mixture(self, members: Sequence[int], weights: Sequence[float] | None = None) -> Mixture:
        """How the surrogate of a cluster came to be; parameters as for `surrogate`."""
        self.surrogate(members, weights)
        return self._mixtures[self._key(*self._checked_members(members, weights))]

    @staticmethod
    def _key(members: np.ndarray, weights: np.ndarray) -> tuple:
        return (members.tobytes(), weights.tobytes())

    def _mix(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        key = self._key(members, weights)
        if key not in self._mixtures:
            registry = AS_PUBLISHED if self.as_published else MIXES
            self._mixtures[key] = registry[self.mix](self, members, weights)
        return self._mixtures[key].image

    def _mix_like(self, members: np.ndarray, weights: np.ndarray, like: int) -> np.ndarray:
        import stylegan

        self._mix(members, weights)
        mixed = self._mixtures[self._key(members, weights)].code
        return self.draw(stylegan.mix_styles(mixed, self.codes[like], self.photo_layers))

    def surrogates(self, clusters: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Make the faces of all clusters of a release.

        The published adjustment decides for all of them at once, by the rate over the whole data set.
        """
        if not (self.as_published and self.mix == "adjusted"):
            return super().surrogates(clusters)
        checked = [self._checked_members(members, None) for members in clusters]
        mixtures = adjust_as_published(self, checked)
        for (members, weights), mixture in zip(checked, mixtures, strict=True):
            self._mixtures[self._key(members, weights)] = mixture
        return [mixture.image for mixture in mixtures]

    # What the adjustments decide by

    @cached_property
    def descriptors(self) -> np.ndarray:
        """Descriptors of the photos by dlib: float32 (n, 128)."""
        return embedding.embed(self.faces, "dlib")

    def distances(self, image: np.ndarray, members: np.ndarray) -> np.ndarray | None:
        """Distances from a surrogate to its members (m,); None where no face is found on it."""
        if not detection.detect([image]).found[0]:
            return None
        return np.linalg.norm(embedding.embed([image], "dlib")[0] - self.descriptors[members], axis=1)


def _beside(network: Path, what: str) -> Path:
    return network.with_name(f"{network.stem}-{what}.npz")


def _kept_codes(path: Path, network) -> tuple[np.ndarray, np.ndarray]:
    """Names and codes of photos that a file holds; none where there is no file."""
    if not path.is_file():
        return np.zeros(0, dtype=str), np.zeros((0, network.num_layers, network.w_dim), dtype=np.float32)
    arrays = utils.load_arrays(path)
    names, codes = arrays.get("names"), arrays.get("codes")
    wanted = (0 if names is None else len(names), network.num_layers, network.w_dim)
    if names is None or codes is None or codes.shape != wanted or not np.isfinite(codes).all():
        raise ValueError(
            f"{path}: holds no names with codes of the shape {wanted[1:]} for the network beside it"
        )
    return names, codes.astype(np.float32)


#: From this resolution on a layer counts as fine (section 3.1 of the StyleGAN paper).
FINE_FROM = 64


def fine_layers(network) -> list[int]:
    """Layers that carry light, colour and texture: those of 64 pixels and more, at least the last two."""
    sides = np.repeat(network.architecture.resolutions, 2)
    return [i for i, side in enumerate(sides) if side >= FINE_FROM or i >= network.num_layers - 2]


def _trace_row(model: StyleMixing, number: int, strength: float, image: np.ndarray, members) -> dict:
    """One round of an adjustment, measured on the members."""
    distances = model.distances(image, members)
    found = distances is not None
    return {
        "round": number,
        "strength": strength,
        "information_loss": float(distances.mean()) if found else float("nan"),
        "re_identification": float((distances < model.threshold).mean()) if found else 0.0,
        "found": found,
    }


def _better(row: dict, best: dict | None) -> bool:
    """Whether a round beats the best so far: a face first, then fewer re-identified, then less lost."""
    if best is None:
        return True
    order = [(not r["found"], r["re_identification"], r["information_loss"]) for r in (row, best)]
    return order[0] < order[1]


def _target(model: StyleMixing, members: np.ndarray) -> float:
    """1/k, with k the number of people among the members."""
    return 1 / len(np.unique(model.faces.identities[members]))


def _search(model: StyleMixing, members: np.ndarray, candidates) -> Mixture:
    """Try (strength, code) one after the other until at most 1/k of the members are re-identified."""
    target, trace, best, kept = _target(model, members), [], None, None
    reason = ROUNDS_SPENT
    for number, (strength, code) in enumerate(candidates):
        image = model.draw(code)
        row = _trace_row(model, number, strength, image, members)
        trace.append(row)
        if _better(row, best):
            best, kept = row, (code, image, strength)
        if row["found"] and row["re_identification"] <= target:
            reason = TARGET_MET
            break
    code, image, strength = kept
    return Mixture(code, image, strength, reason, trace)


def _mean(model: StyleMixing, members: np.ndarray, weights: np.ndarray) -> Mixture:
    code = model.mean_code(members, weights)
    return Mixture(code, model.draw(code), model.strength)


def _adjusted(model: StyleMixing, members: np.ndarray, weights: np.ndarray) -> Mixture:
    """Shrink the mean towards the average face, by a fifth a round, until the cluster's own rate is at most 1/k."""
    code = model.mean_code(members, weights)
    strengths = FACTOR ** np.arange(MAX_ROUNDS + 1)
    return _search(model, members, ((float(s), model.towards_average(code, s)) for s in strengths))


def _random_weights(model: StyleMixing, members: np.ndarray, number: int) -> np.ndarray:
    """Weights of one draw for a cluster, the same whenever this cluster is asked for: (m,)."""
    random = np.random.default_rng([model._seed, number, *members.tolist()])
    return random.uniform(*WEIGHT_RANGE, size=len(members))


def _random(model: StyleMixing, members: np.ndarray, weights: np.ndarray) -> Mixture:
    """Random weights on what sets the members apart from the average face, drawn anew until the rate is at most 1/k.

    The scale exaggerates the mixture beyond the members: on average by 1.67 * 0.8 = 1.34.
    """

    def candidates():
        for number in range(MAX_DRAWS):
            drawn = weights * _random_weights(model, members, number)
            strength = SCALE * drawn.sum()
            mean = model.mean_code(members, drawn / drawn.sum())
            yield float(strength), model.towards_average(mean, strength)

    return _search(model, members, candidates())


def _random_as_published(model: StyleMixing, members: np.ndarray, weights: np.ndarray) -> Mixture:
    """Random weights on the codes themselves, whose mean moves away from w = 0."""
    drawn = weights * _random_weights(model, members, 0)
    code = SCALE * np.tensordot(drawn, model.codes[members].astype(np.float64), axes=1)
    code = code.astype(np.float32)
    return Mixture(code, model.draw(code), float(SCALE * drawn.sum()))


def adjust_as_published(
    model: StyleMixing, clusters: Sequence[tuple[np.ndarray, np.ndarray]], max_rounds: int = MAX_ROUNDS
) -> list[Mixture]:
    """The adjustment as released: all clusters together, towards w = 0, until the data set's rate is at most 1/k.

    In every round a common factor falls by a fifth; clusters in which somebody is re-identified are drawn anew, with
    the codes of those members a fifth shorter still. Nothing keeps the loop from running for ever when the face at
    w = 0 itself is near to many people; here it ends after `max_rounds`.

    Parameters
    ----------
    model : StyleMixing
    clusters : sequence of (members, weights)
    max_rounds : int

    Returns
    -------
    list of Mixture
        One for each cluster; the traces tell the rounds in which it was drawn.
    """
    k = min(len(np.unique(model.faces.identities[members])) for members, _ in clusters)
    states = []
    for members, weights in clusters:
        code = np.tensordot(weights, model.codes[members].astype(np.float64), axes=1).astype(np.float32)
        image = model.draw(code)
        states.append(
            {"code": code, "image": image, "strength": 1.0, "near": _near(model, image, members),
             "trace": [_trace_row(model, 0, 1.0, image, members)]}
        )  # fmt: skip
    reason = TARGET_MET
    alpha = 1.0
    for number in range(1, max_rounds + 2):
        if np.concatenate([state["near"] for state in states]).mean() <= 1 / k:
            break
        if number > max_rounds:
            reason = "the published loop was cut off: its target is not met within the bound of rounds"
            break
        alpha *= FACTOR
        for (members, weights), state in zip(clusters, states, strict=True):
            if not state["near"].any():
                continue
            shares = weights * np.where(state["near"], FACTOR, 1.0)
            code = alpha * np.tensordot(shares, model.codes[members].astype(np.float64), axes=1)
            state["code"] = code.astype(np.float32)
            state["image"] = model.draw(state["code"])
            state["strength"] = alpha
            state["near"] = _near(model, state["image"], members)
            state["trace"].append(_trace_row(model, number, alpha, state["image"], members))
    return [Mixture(s["code"], s["image"], s["strength"], reason, s["trace"]) for s in states]


def _near(model: StyleMixing, image: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Which members an image would be taken for: bool (m,); none where it shows no face."""
    distances = model.distances(image, members)
    return np.zeros(len(members), dtype=bool) if distances is None else distances < model.threshold


def _adjusted_alone_as_published(model: StyleMixing, members: np.ndarray, weights: np.ndarray) -> Mixture:
    return adjust_as_published(model, [(members, weights)])[0]


#: How codes are mixed, by name; and what the released code does under the same name.
MIXES: dict[str, Callable] = {"mean": _mean, "adjusted": _adjusted, "random": _random}
AS_PUBLISHED: dict[str, Callable] = {
    "mean": _mean,
    "adjusted": _adjusted_alone_as_published,
    "random": _random_as_published,
}
