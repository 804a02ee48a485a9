"""k-Same-Net: surrogates drawn by an up-convolutional network for the mean of the members' identity codes.

Meden, Emersic, Struc and Peer, "k-Same-Net: k-anonymity with generative deep neural networks for face
deidentification", Entropy 20(1):60, 2018. There the network knows a gallery of proxy identities, apart from the people
who are protected, and a cluster gets a mixture of the k proxies nearest to it: the option `proxy`. Without
it the network must have been trained on the people themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

import embedding
import frame
import utils
from anonymizer.base import Surrogates
from datasets import Faces

#: The bundled weights; the package that reads them takes seconds to import, so it is not asked here.
BUNDLED = Path(__file__).resolve().parents[1] / "CNN" / "output" / "ORL.keras"


class UpConvolution(Surrogates):
    """Surrogates from an up-convolutional network.

    Parameters
    ----------
    faces : Faces
    weights : str or Path, optional
        A network's file, see `CNN.load_model`; by default the bundled one, which knows the ORL people.
    proxy : int, default 0
        Stand for each person with the mean of so many of the network's identities, those nearest by dlib
        descriptors, so that the network need not know the person. 0 takes the person's own identity.
    show : mapping or "members", optional
        What all surrogates show, by the names of `CNN.generation`: ``{"em": "happy", "or": 20}``, or
        ``{"nu": "s1/3.pgm"}`` for the pose and expression of a training photo. ``"members"`` keeps the mean
        pose and expression of the members' photos. By default calm and frontal.
    identities : sequence of str, optional
        Whom the places of the identity code stand for, where the file does not say (released ``.h5`` files).

    Attributes
    ----------
    model : CNN.FaceNetwork
    identity_codes : ndarray of float32, shape (n, identities)
        Each photo's person, as shares of the network's identities.

    Raises
    ------
    FileNotFoundError
        If there is no such file of weights.
    ValueError
        If the network does not know the people, or for options that do not fit it.
    """

    name = "cnn"

    @classmethod
    def fits(cls, faces: Faces) -> bool:
        """Whether the bundled network, which was trained on the ORL people, can stand for these faces."""
        return faces.source == "orl" and BUNDLED.is_file()

    def __init__(
        self,
        faces: Faces,
        weights: str | Path | None = None,
        proxy: int = 0,
        show: Mapping | str | None = None,
        identities: Sequence[str] | None = None,
    ):
        import CNN  # loads TensorFlow, which takes seconds and the other anonymizers do without
        from CNN import generation

        super().__init__(faces)
        self.weights_path = Path(BUNDLED if weights is None else weights)
        self.model = CNN.load_model(self.weights_path, identities)
        n = len(self.model.identities)
        if isinstance(proxy, bool) or not isinstance(proxy, int | np.integer) or not 0 <= proxy <= n:
            raise ValueError(
                f"proxy must be a whole number from 0 to the network's {n} identities, not {proxy!r}"
            )
        self.proxy = int(proxy)
        self.keep_members = isinstance(show, str) and show == "members"
        given = {} if self.keep_members or show is None else show
        if not isinstance(given, Mapping) or "id" in given:
            raise ValueError(f"show must be values for em, or, ps, lt and nu, or 'members', got {show!r}")
        shown = generation.fixed_codes(self.model, given)
        self._shown = {name: code for name, code in shown.items() if name != "identity"}
        if isinstance(given.get("nu"), str):  # of a photo's code, what does not belong to its person
            self._shown["nuisance"] = self.model.shared_part(self._shown["nuisance"])
        if proxy == 0:
            self._check_known(given=identities is not None)

    def _check_known(self, given: bool) -> None:
        """Refuse people whom the network was not trained on, telling what to do."""
        unknown = sorted(set(self.faces.people) - set(self.model.identities))
        same_source = given or self.faces.source == self.model.dataset
        if same_source and not unknown:
            return
        reason = (
            f"does not know {len(unknown)} of the people, the first is {unknown[0]}"
            if same_source
            else f"was trained on other people ({self.model.dataset or 'unknown'}, these are {self.faces.source})"
        )
        raise ValueError(
            f"the network {self.weights_path.name} {reason}; train one with: python -m CNN train SOURCE "
            "--out CNN/output/NAME.keras, and give weights='CNN/output/NAME.keras'; or give proxy=10 to stand for each "
            "person with the 10 nearest people whom the network knows"
        )

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

    @cached_property
    def identity_codes(self) -> np.ndarray:
        """Each photo's person as shares of the network's identities: float32 (n, identities)."""
        if self.proxy == 0:
            return self.model.identity_codes(self.faces.identities)
        people, person = np.unique(self.faces.identities, return_inverse=True)
        described = embedding.embed(self.faces, "dlib")
        means = np.stack([described[person == p].mean(axis=0) for p in range(len(people))])
        n = len(self.model.identities)
        gallery = embedding.embed([self._draw(one) for one in np.eye(n, dtype=np.float32)], "dlib")
        distance = np.linalg.norm(means[:, None] - gallery[None], axis=2)  # (people, identities)
        nearest = np.argsort(distance, axis=1, kind="stable")[:, : self.proxy]
        codes = np.zeros((len(people), n), dtype=np.float32)
        np.put_along_axis(codes, nearest, np.float32(1 / self.proxy), axis=1)
        return codes[person]

    def _draw(self, identity: np.ndarray, **codes: np.ndarray) -> np.ndarray:
        """Draw one face: identity (identities,) -> uint8 (h, w, 3)."""
        return frame.to_photo(self.model.generate(identity[None], **{**self._shown, **codes})[0] * 255)

    def _mixed(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return (weights @ self.identity_codes[members].astype(np.float64)).astype(np.float32)

    def _mix(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        own = {}
        if self.keep_members:
            codes = [self._followed(i) for i in members]
            own = {
                name: sum(w * one[name] for w, one in zip(weights, codes, strict=True)) for name in codes[0]
            }
        return self._draw(self._mixed(members, weights), **own)

    def _mix_like(self, members: np.ndarray, weights: np.ndarray, like: int) -> np.ndarray:
        return self._draw(self._mixed(members, weights), **self._followed(like))

    def reconstruct(self, i: int) -> np.ndarray:
        """Photo `i` as the network draws it: its person, and the photo's own pose and expression.

        Where neither is known for this photo (a network for emotions, photos without attributes), the person is drawn
        as surrogates are.
        """
        i = self._row(i)
        known = "nuisance" in self.model.architecture.input_sizes or {"expression", "pose"} <= set(
            self.faces.attributes.columns
        )
        return self._draw(self.identity_codes[i], **(self._codes_of(i) if known else {}))

    def _codes_of(self, i: int) -> dict[str, np.ndarray]:
        """What is photo `i`'s own: its nuisance code, or its emotion and orientation by its attributes."""
        if "nuisance" in self.model.architecture.input_sizes:
            return {"nuisance": self.nuisance(i)[None]}
        from CNN import fitting

        own = fitting.conditions_of(self.faces.select([i]))
        return {name: code for name, code in own.items() if name in self._shown}

    def _followed(self, i: int) -> dict[str, np.ndarray]:
        """What another face can take over from photo `i`: pose and expression, and not what belongs to the person."""
        own = self._codes_of(i)
        return {
            name: self.model.shared_part(code) if name == "nuisance" else code for name, code in own.items()
        }

    def nuisance(self, i: int) -> np.ndarray:
        """The nuisance code of photo `i`, float32 (m,): learnt in training, or else fitted to the photo."""
        i = self._row(i)
        if self.proxy == 0:
            known = self.model.nuisance_of(self.faces.names[i])
            if known is not None:
                return known
        code = utils.source_key(__name__)
        key = utils.content_key(self.faces.image_keys[i], self.identity_codes[i], self._options(), code)
        return utils.cached_batches("cnn-nuisance", [key], lambda rows: self._fit([i]), "fitting codes", 1)[0]

    def _fit(self, rows: Sequence[int]) -> np.ndarray:
        from CNN import fitting

        images = [self.faces.images[i] for i in rows]
        pictures, visible = fitting.align(images, self.landmarks[rows], self.model)
        return fitting.fit_nuisance(self.model, self.identity_codes[rows], pictures, visible)
