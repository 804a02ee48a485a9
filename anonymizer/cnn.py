"""k-Same-Net: surrogates that an up-convolutional network draws from the mean of the members' identity codes.

Meden, Emersic, Struc and Peer, "k-Same-Net: k-anonymity with generative deep neural networks for face
deidentification", Entropy 20(1):60, 2018. In the paper, the network is trained on proxy identities, disjoint from the
people to protect, and a cluster gets a mixture of the k nearest proxies: the option `proxy`. Without this option, the
network must have been trained on the people themselves, and on these photos of them or with these held out: people are
recognised by their photos' pixels, because another data set may use the same names.

The package `CNN` is imported inside functions because it loads TensorFlow, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

import datasets
import embedding
import frame
import utils
from anonymizer.base import Surrogates
from checks import ParameterError, check_number
from datasets import Faces

#: Photos to which nuisance codes are fitted at once.
_FITTED_AT_ONCE = 16

_BUNDLED = Path(__file__).resolve().parents[1] / "CNN" / "output" / "ORL.keras"


class UpConvolution(Surrogates):
    """Surrogates from an up-convolutional network.

    Parameters
    ----------
    faces : Faces
    weights : str or Path, optional
        A network's file, see `CNN.load_model`; by default the bundled network, which was trained on the ORL people.
    proxy : int, default 0
        Replace each person by the mean of this many of the network's identities, the nearest by dlib descriptors; the
        network then need not know the person. 0 uses the person's own identity.
    show : mapping or "members", optional
        Pose and expression of all surrogates, by the names of `CNN.generation`: ``{"em": "happy", "or": 20}``, or
        ``{"nu": "s1/3.pgm"}`` for the pose and expression of a training photo. ``"members"`` uses the mean pose and
        expression of the members' photos. The default is neutral and frontal.
    identities : sequence of str, optional
        The person for each position of the identity code, for files that do not name them (released ``.h5`` files), or
        for other photos of the same people. The names are then trusted.

    Attributes
    ----------
    model : CNN.FaceNetwork
    identity_codes : ndarray of float32, shape (n, identities)
        The person in each photo as shares of the network's identities.

    Raises
    ------
    FileNotFoundError
        If the file of weights does not exist.
    ValueError
        If the network does not know the people, or an option is invalid for it.
    """

    name = "cnn"
    trained_on = "orl"
    files = MappingProxyType({"weights": (_BUNDLED,)})

    def __init__(
        self,
        faces: Faces,
        weights: str | Path | None = None,
        proxy: int = 0,
        show: Mapping | str | None = None,
        identities: Sequence[str] | None = None,
    ):
        import CNN
        from CNN import generation

        super().__init__(faces)
        self.weights_path = Path(CNN.BUNDLED if weights is None else weights)
        self.model = CNN.load_model(self.weights_path, identities)
        self._has_nuisance = "nuisance" in self.model.architecture.input_sizes
        self.proxy = int(check_number("proxy", proxy, int, at_least=0, at_most=len(self.model.identities)))
        self.keep_members = isinstance(show, str) and show == "members"
        given = {} if self.keep_members or show is None else show
        if not isinstance(given, Mapping) or "id" in given:
            raise ParameterError(
                f"show must be 'members' or a mapping of em, or, ps, lt and nu, got {show!r}"
            )
        shown = generation.fixed_codes(self.model, given)
        self._shown = {name: code for name, code in shown.items() if name != "identity"}
        # Remove the person's part from a photo's code.
        if isinstance(given.get("nu"), str):
            self._shown["nuisance"] = self.model.shared_part(self._shown["nuisance"])
        if self.proxy == 0:
            self._check_known(given=identities is not None)

    def _check_known(self, given: bool) -> None:
        """Raise ValueError if the network was not trained on these people."""
        people = sorted(set(self.faces.people) - set(self.model.identities))
        if people:
            reason = f"does not know {len(people)} of the people (first: {people[0]})"
        else:
            unknown = [
                name for name, known in zip(self.faces.names, self._known_names, strict=True) if not known
            ]
            if given or not unknown:
                return
            reason = f"does not know {len(unknown)} of the {len(self.faces)} photos (first: {unknown[0]})"
        raise ValueError(
            f"the network {self.weights_path.name} was trained on {self.model.dataset or 'unknown people'} and "
            f"{reason}; train one with: python -m CNN train SOURCE --out CNN/output/NAME.keras, and pass "
            "weights='CNN/output/NAME.keras'; or pass proxy=10 to replace each person by the mean of the 10 nearest "
            "people that the network knows"
        )

    @cached_property
    def _known_names(self) -> list[str | None]:
        """The name under which the network knows each photo with its person, None for photos that it does not know."""
        known = self.model.known_photos
        if not known and self.model.dataset in datasets.DATASETS:  # the bundled network
            trained_on = datasets.built_in(self.model.dataset)
            known = dict(zip(trained_on.photo_keys, trained_on.names.tolist(), strict=True))
        return [known.get(key) for key in self.faces.photo_keys]

    def _options(self) -> dict:
        return {
            "weights": self._weights_key,
            "proxy": self.proxy,
            "show": "members" if self.keep_members else self._shown,
            "identities": list(self.model.identities),
        }

    @cached_property
    def _weights_key(self) -> str:
        return utils.content_key(self.weights_path.read_bytes())

    # Identity codes

    @cached_property
    def identity_codes(self) -> np.ndarray:
        """The person in each photo as shares of the network's identities: float32 (n, identities)."""
        if self.proxy == 0:
            return self.model.identity_codes(self.faces.identities)
        # Mean descriptor of each person. (people, 128)
        people, person = np.unique(self.faces.identities, return_inverse=True)
        described = embedding.embed(self.faces, "dlib")
        means = np.stack([described[person == p].mean(axis=0) for p in range(len(people))])
        # Draw and describe each of the network's identities. (identities, 128)
        n = len(self.model.identities)
        gallery = embedding.embed([self._draw(one) for one in np.eye(n, dtype=np.float32)], "dlib")
        # Give each person equal shares of the nearest identities. (people, identities)
        distance = np.linalg.norm(means[:, None] - gallery[None], axis=2)
        nearest = np.argsort(distance, axis=1, kind="stable")[:, : self.proxy]
        codes = np.zeros((len(people), n), dtype=np.float32)
        np.put_along_axis(codes, nearest, np.float32(1 / self.proxy), axis=1)
        return codes[person]

    # Drawing

    def _draw(self, identity: np.ndarray, **codes: np.ndarray) -> np.ndarray:
        """Draw an identity code (identities,) with the codes of `show`, some replaced by `codes`: uint8 (h, w, 3)."""
        return frame.to_photo(self.model.generate(identity[None], **{**self._shown, **codes})[0] * 255)

    def _mixed(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return (weights @ self.identity_codes[members].astype(np.float64)).astype(np.float32)

    def _mix(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        own = {}
        if self.keep_members:
            for i, weight in zip(members, weights, strict=True):
                own = {name: own.get(name, 0) + weight * code for name, code in self._followed(i).items()}
        return self._draw(self._mixed(members, weights), **own)

    def _mix_like(self, members: np.ndarray, weights: np.ndarray, like: int) -> np.ndarray:
        return self._draw(self._mixed(members, weights), **self._followed(like))

    def reconstruct(self, i: int) -> np.ndarray:
        """Reconstruct photo `i` from its person's identity and its own pose and expression.

        If neither is known for the photo (an emotion network, but photos without attributes), the pose and expression
        are those of the surrogates.
        """
        i = self._row(i)
        known = {"expression", "pose"} <= set(self.faces.attributes) or self._has_nuisance
        return self._draw(self.identity_codes[i], **(self._codes_of(i) if known else {}))

    def reconstructions(self, rows: Sequence[int]) -> list[np.ndarray]:
        """Reconstruct several photos, as `reconstruct` does."""
        if self._has_nuisance:
            self._nuisances([self._row(i) for i in rows])  # fitting them together takes a tenth of the time
        return super().reconstructions(rows)

    # Pose and expression of a photo

    def _codes_of(self, i: int) -> dict[str, np.ndarray]:
        """Photo `i`'s own codes: its nuisance code, or its emotion and orientation by its attributes."""
        if self._has_nuisance:
            return {"nuisance": self.nuisance(i)[None]}
        from CNN import fitting

        own = fitting.conditions_of(self.faces.select([i]))
        return {name: code for name, code in own.items() if name in self._shown}

    def _followed(self, i: int) -> dict[str, np.ndarray]:
        """The codes that another face can take from photo `i`: pose and expression without the person's part."""
        codes = self._codes_of(i)
        if "nuisance" in codes:
            codes["nuisance"] = self.model.shared_part(codes["nuisance"])
        return codes

    def nuisance(self, i: int) -> np.ndarray:
        """Return the nuisance code of photo `i`, learnt in training or fitted to the photo: float32 (m,)."""
        return self._nuisances([self._row(i)])[0]

    def _nuisances(self, rows: Sequence[int]) -> list[np.ndarray]:
        """The nuisance codes of some photos, of which unknown ones are fitted together: float32 (m,) each."""
        codes = {i: self._learnt_nuisance(i) for i in rows}
        others = [i for i, code in codes.items() if code is None]
        how = self._options(), utils.source_key(__name__)
        keys = [utils.content_key(self.faces.image_keys[i], self.identity_codes[i], *how) for i in others]

        def fit(places: Sequence[int]) -> np.ndarray:
            return self._fit([others[place] for place in places])

        fitted = utils.cached_batches("cnn-nuisance", keys, fit, "fitting codes", _FITTED_AT_ONCE)
        codes.update(zip(others, fitted, strict=True))
        return list(codes.values())

    def _learnt_nuisance(self, i: int) -> np.ndarray | None:
        """The nuisance code that photo `i` got in training, if any."""
        name = self._known_names[i]
        return self.model.nuisance_of(name) if self.proxy == 0 and name is not None else None

    def _fit(self, rows: Sequence[int]) -> np.ndarray:
        """Fit nuisance codes to photos: float32 (n, m)."""
        from CNN import fitting

        images = [self.faces.images[i] for i in rows]
        pictures, visible = fitting.align(images, self.landmarks[rows], self.model)
        return fitting.fit_nuisance(self.model, self.identity_codes[rows], pictures, visible)
