"""k-Same-M: surrogates from an Active Appearance Model, on a painted-in background.

Gross, Sweeney, de la Torre and Baker, "Model-based face de-identification", CVPR Workshops 2006 (k-Same-M);
Cootes, Edwards and Taylor, "Active appearance models", PAMI 23(6), 2001 (the model).

The model is linear. What a plain mean of k faces shows besides a face are ghosts: the glasses, moles and
hair lines of single members at 1/k of their strength. So the members' textures are mixed in bands of a Laplacian
pyramid (Burt and Adelson 1983), and in the fine bands what sticks out from the typical face counts only so far as
more than half of the members agree on it. Means also lose texture; each band's strength is brought back towards
that of the members, after Tiddeman, Burt and Perrett, "Prototyping and transforming facial textures for
perception research", IEEE CG&A 21(5), 2001.
"""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
from sklearn.linear_model import RidgeCV

import detection
import frame
from anonymizer.pixel import LinearModel, TextureSurrogates, check_share
from datasets import Faces
from frame import Mesh

#: Landmarks of the lower lip, and how far they are moved down in the reference shape (in mouth widths).
LOWER_LIP = [55, 56, 57, 58, 59, 65, 66, 67]
MOUTH_OPENING = 0.2

#: Surrogates are drawn so much finer on each side and then averaged, or thin triangles would leave specks.
OVERSAMPLING = 3

#: Bands of the pyramid (0 is the finest) in which outstanding detail must find a majority.
ROBUST_BANDS = 4
#: Bands from which a photo is judged to have outstanding detail at a place.
JUDGED_BANDS = 3
#: Bands whose strength is brought back, and by how much at most.
RESTORED_BANDS, LARGEST_GAIN = 3, 2.0
#: A detail stands out where it differs from the typical one by more than so many robust standard deviations.
OUTSTANDING = 2.0
#: How fast trust falls where details stand out.
STEEPNESS = 4.0
#: Width (standard deviation in pixels of the band) over which details are judged together.
NEIGHBOURHOOD = 3.0
#: How often the typical detail is taken anew, and what makes the spread of trusted details one of all.
REWEIGHTINGS, TRIMMED = 2, 1.15
#: Grey levels under which differences are noise.
NOISE = 0.5
#: The typical detail is the median over at most so many photos.
MEDIAN_PHOTOS = 200


class ActiveAppearanceModel(TextureSurrogates):
    """Shape, texture and their combination as linear models; surrogates at the members' mean shape.

    Parameters
    ----------
    faces : Faces
    keep_shape, keep_texture, keep_combined : float, default 0.999, 0.999, 0.9999
        Share of the variance that each model keeps.
    **options
        As for `TextureSurrogates`.

    Attributes
    ----------
    shape_model, texture_model, combined_model : anonymizer.pixel.LinearModel
    shape_weight : float
        Grey levels that one pixel of shape counts for in the combined model (Cootes et al. 2001, section 2.1).
    """

    name = "aam"

    def __init__(
        self,
        faces: Faces,
        keep_shape: float = 0.999,
        keep_texture: float = 0.999,
        keep_combined: float = 0.9999,
        **options,
    ):
        self.keep = {
            "keep_shape": check_share("keep_shape", keep_shape),
            "keep_texture": check_share("keep_texture", keep_texture),
            "keep_combined": check_share("keep_combined", keep_combined),
        }
        super().__init__(faces, **options)

    def _options(self) -> dict:
        return {**super()._options(), **self.keep}

    def _warp(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Texture (h, w, c) of one photo at the mean shape, and where it shows something (h, w)."""
        inverse = cv2.invertAffineTransform(self.frame.transform(self.landmarks[i]))
        source = detection.move_points(self.mesh.corners(self.shape(i)), inverse)  # in the photo
        positions = self.mesh.source_positions(self.reference, source, self.frame.height, self.frame.width)
        return frame.sample(self._photo(i), positions)

    @cached_property
    def mesh(self) -> Mesh:
        """The triangles over the frame."""
        return Mesh.over(self.reference, self.frame.height, self.frame.width)

    @cached_property
    def reference(self) -> np.ndarray:
        """The shape at which textures are kept: the mean shape with its mouth open, (68, 2).

        At a closed mouth the triangles between the lips would have no pixels to keep an open one's teeth in.
        """
        shape = self.frame.shape.copy()
        gap = MOUTH_OPENING * np.linalg.norm(shape[54] - shape[48])
        down = (shape[8] - shape[27]) / np.linalg.norm(shape[8] - shape[27])
        shape[LOWER_LIP] += gap * down
        return shape

    def shape(self, i: int) -> np.ndarray:
        """Landmarks of one photo in the frame: (68, 2)."""
        return detection.move_points(self.landmarks[i], self.frame.transform(self.landmarks[i]))

    def _fit(self, textures: np.ndarray) -> None:
        self._encoded: dict[int, np.ndarray] = {}
        rows = textures.reshape(len(textures), -1)
        shapes = np.stack([self.shape(i).ravel() for i in self.training_rows])  # (m, 136)
        self.shape_model = LinearModel.fit(shapes, self.keep["keep_shape"])
        self.texture_model = LinearModel.fit(rows, self.keep["keep_texture"])
        spread = [max(model.variances.sum(), 1e-12) for model in (self.texture_model, self.shape_model)]
        self.shape_weight = float(np.sqrt(spread[0] / spread[1]))
        parts = self._join(self.shape_model.encode(shapes), self.texture_model.encode(rows))
        self.combined_model = LinearModel.fit(parts, self.keep["keep_combined"])
        self._learn_details(textures[:: -(-len(textures) // MEDIAN_PHOTOS)])

    def _join(self, shape: np.ndarray, texture: np.ndarray) -> np.ndarray:
        return np.concatenate([self.shape_weight * shape, texture], axis=-1)

    def _learn_details(self, textures: np.ndarray) -> None:
        """Learn what detail is typical at each place: centre and spread over the photos for each band.

        Starts from median and median absolute deviation; where many photos show something outstanding in one
        place (glasses), these still follow it, so photos are weighed by their trust and both are taken anew.
        """
        bands = [np.stack(band) for band in zip(*(pyramid(texture) for texture in textures), strict=True)]
        robust = bands[:-1]
        self._typical_detail = [np.median(band, axis=0) for band in robust]
        deviations = [
            np.abs(band - centre) for band, centre in zip(robust, self._typical_detail, strict=True)
        ]
        self._spread = [_smooth(1.4826 * np.median(deviation, axis=0)) + NOISE for deviation in deviations]
        for _ in range(REWEIGHTINGS):
            trusts = self._trust(bands)
            for level, (band, trust) in enumerate(zip(robust, trusts, strict=True)):
                total = np.maximum(trust.sum(axis=0), 1e-6)
                centre = (trust * band).sum(axis=0) / total
                variance = (trust * (band - centre) ** 2).sum(axis=0) / total
                self._typical_detail[level] = centre
                self._spread[level] = _smooth(np.sqrt(variance)) * TRIMMED + NOISE

    def encode(self, i: int) -> np.ndarray:
        """Appearance parameters of one photo: (m,)."""
        if i not in self._encoded:
            self._encoded[i] = self._encode(i)
        return self._encoded[i]

    def _encode(self, i: int) -> np.ndarray:
        shape = self.shape_model.encode(self.shape(i).ravel())
        texture = self.texture_model.encode(self.texture(i).ravel())
        return self.combined_model.encode(self._join(shape, texture))

    def decode(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shape (68, 2) and texture (h, w, c) of appearance parameters (m,)."""
        joined = self.combined_model.decode(parameters)
        n_shape = len(self.shape_model.basis)
        shape = self.shape_model.decode(joined[:n_shape] / self.shape_weight)
        texture = self.texture_model.decode(joined[n_shape:].astype(np.float32))
        return shape.reshape(-1, 2), texture.reshape(self.typical.shape)

    def render(self, shape: np.ndarray, texture: np.ndarray) -> np.ndarray:
        """Draw a texture (h, w, c) at a shape (68, 2): uint8 (h, w, 3)."""
        height, width = self.frame.height, self.frame.width
        source = self.mesh.corners(self.reference)
        positions = self.mesh.source_positions(shape, source, height, width, OVERSAMPLING)
        fine = frame.sample(texture, positions)[0]
        return frame.to_photo(
            cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).reshape(texture.shape)
        )

    def _mix(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return self._draw_mixture(np.stack([self.encode(i) for i in members]), weights, 0.0, 0.0)

    def _mix_like(self, members: np.ndarray, weights: np.ndarray, like: int) -> np.ndarray:
        """The members' mean face, moved as photo `like` differs from its person's photos.

        Only landmarks and light are taken from the photo, and detail as it goes along with such landmarks on the other
        people: the texture's own difference would bring back glasses or a beard that sit a little elsewhere.
        """
        shape, texture = self._usual(like)
        move = (self.shape(like) - shape).ravel()
        light = _plane(self.texture(like) - texture)
        detail = (self.shape_model.basis @ move) @ self._detail_of_move(self.faces.identities[like])
        detail = (detail.astype(np.float32) @ self.texture_model.basis).reshape(light.shape)
        parameters = np.stack([self._mean_of_person(i) for i in members])
        return self._draw_mixture(parameters, weights, move.reshape(-1, 2), light + detail)

    def _usual(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """What the person on photo `i` usually looks like: mean landmarks (68, 2), and a texture to tell light from.

        Where there is a single photo of a person, those that were set apart with the faces give the landmarks, and
        light is left as it is.
        """
        own = np.flatnonzero(self.faces.identities == self.faces.identities[i])
        if len(own) > 1:
            return np.mean([self.shape(j) for j in own], axis=0), np.mean(
                [self.texture(j) for j in own], axis=0
            )
        others = self.faces.others
        apart = [] if others is None else np.flatnonzero(others.identities == self.faces.identities[i])
        if len(apart) == 0:
            raise ValueError(
                f"photo {i} is the only one of its person, so its expression cannot be told from the person's "
                "features; leave out `like`, or give several photos of each person"
            )
        landmarks = detection.detect(others.select(apart)).landmarks
        shapes = [detection.move_points(points, self.frame.transform(points)) for points in landmarks]
        return np.mean([self.shape(i), *shapes], axis=0), self.texture(i)

    def _detail_of_move(self, person: str) -> np.ndarray:
        """How texture changes with the landmarks on photos of all but one person: (shape, texture components).

        Ridge regression on the differences of photos from their person's mean, light taken out.
        """
        people, moves, details = self._changes
        others = people != person
        strength = np.square(moves[others]).sum()
        if strength < 1e-9:  # nobody else, or one photo each
            return np.zeros((len(self.shape_model.basis), len(self.texture_model.basis)))
        ridge = RidgeCV(strength * np.logspace(-5, 1, 13), fit_intercept=False)
        return ridge.fit(moves[others], details[others]).coef_.T

    @cached_property
    def _changes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Who is on each training photo, and its components of shape and texture less those of the person's mean."""
        rows = self.training_rows
        people = self.faces.identities[rows]
        moves = np.stack([self.shape(i).ravel() for i in rows]) @ self.shape_model.basis.T
        changes = [self.texture(i) for i in rows]
        details = np.stack([(part - _plane(part)).ravel() @ self.texture_model.basis.T for part in changes])
        for person in np.unique(people):
            for values in (moves, details):
                values[people == person] -= values[people == person].mean(axis=0)
        return people, moves, details

    def _mean_of_person(self, i: int) -> np.ndarray:
        own = np.flatnonzero(self.faces.identities == self.faces.identities[i])
        return np.mean([self.encode(j) for j in own], axis=0)

    def _draw_mixture(self, parameters: np.ndarray, weights: np.ndarray, move, change) -> np.ndarray:
        """Draw the mixture of parameters (k, m), its shape moved (68, 2) and its texture changed (h, w, c)."""
        shape, _ = self.decode(weights @ parameters)
        textures = np.stack([self.decode(row)[1] for row in parameters])  # (k, h, w, c)
        return self.render(shape + move, self._mix_textures(textures, weights.astype(np.float32)) + change)

    def _mix_textures(self, textures: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Mix textures (k, h, w, c) band by band, without ghosts; see the module's docstring."""
        bands = [np.stack(band) for band in zip(*(pyramid(texture) for texture in textures), strict=True)]
        trusts = self._trust(bands)
        mixed = [np.einsum("k,khwc->hwc", weights, band) for band in bands]
        for level in range(len(bands) - 1):
            typical = self._typical_detail[level]
            difference = bands[level] - typical
            trusted = trusts[level] * difference
            agreed = majority(difference - trusted, weights)
            mixed[level] = typical + np.einsum("k,khwc->hwc", weights, trusted) + agreed
            if level < RESTORED_BANDS:
                strength = np.einsum("k,khwc->hwc", weights, _smooth_each(np.abs(typical + trusted)))
                gain = strength / (_smooth(np.abs(mixed[level])) + 0.6 * NOISE)
                mixed[level] *= np.clip(gain, 1, LARGEST_GAIN)
        return collapse(mixed)

    def _trust(self, bands: list[np.ndarray]) -> list[np.ndarray]:
        """How much each member's detail counts at each place: between 0 and 1, (k, h, w, 1) for each band."""
        k, height, width, _ = bands[0].shape
        outstanding = np.zeros((k, height, width), dtype=np.float32)
        for level in range(min(JUDGED_BANDS, len(bands) - 1)):
            deviation = np.abs(bands[level] - self._typical_detail[level]) / self._spread[level]
            excess = np.maximum(deviation.max(axis=3, keepdims=True) - OUTSTANDING, 0)
            for member, part in enumerate(_smooth_each(excess)):
                outstanding[member] += cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
        trust = 1 / (1 + (STEEPNESS * outstanding) ** 2)
        sizes = [band.shape[2:0:-1] for band in bands[:-1]]
        return [
            np.stack([cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in trust])[..., None]
            for size in sizes
        ]


def _plane(texture: np.ndarray) -> np.ndarray:
    """The plane through the values of each channel by least squares: what light from a side does, (h, w, c)."""
    height, width, channels = texture.shape
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(rows), rows, columns], axis=-1).reshape(-1, 3)
    coefficients = np.linalg.lstsq(terms, texture.reshape(-1, channels), rcond=None)[0]
    return (terms @ coefficients).reshape(texture.shape).astype(np.float32)


def majority(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The value nearest to 0 that more than half of the members reach, by weight, with the same sign.

    Parameters
    ----------
    values : ndarray, shape (k, ...)
    weights : ndarray, shape (k,)
        With sum 1.

    Returns
    -------
    ndarray, shape (...)
        0 where no sign has a majority; of a single member, its value.
    """
    above = _reached(np.maximum(values, 0), weights)
    below = _reached(np.maximum(-values, 0), weights)
    return above - below  # at most one of the two has a majority


def _reached(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The largest value that more than half of the members reach, by weight: (k, ...) -> (...)."""
    order = np.argsort(-values, axis=0, kind="stable")
    share = np.cumsum(weights[order], axis=0)
    first = np.argmax(share > 0.5 + 1e-6, axis=0)[None]
    return np.take_along_axis(np.take_along_axis(values, order, axis=0), first, axis=0)[0]


def pyramid(texture: np.ndarray) -> list[np.ndarray]:
    """Laplacian pyramid of a texture (h, w, c): `ROBUST_BANDS` bands, fine to coarse, and what is left."""
    levels = [texture]
    while len(levels) <= ROBUST_BANDS and min(levels[-1].shape[:2]) > 2:
        levels.append(frame.down(levels[-1]))
    return [
        fine - frame.up(coarse, fine.shape) for fine, coarse in zip(levels, levels[1:], strict=False)
    ] + levels[-1:]


def collapse(bands: list[np.ndarray]) -> np.ndarray:
    """The texture of a Laplacian pyramid."""
    texture = bands[-1]
    for band in reversed(bands[:-1]):
        texture = band + frame.up(texture, band.shape)
    return texture


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a neighbourhood, (h, w, c)."""
    return cv2.GaussianBlur(values.astype(np.float32), (0, 0), NEIGHBOURHOOD).reshape(values.shape)


def _smooth_each(values: np.ndarray) -> np.ndarray:
    """Mean over a neighbourhood in each of (k, h, w, c)."""
    return np.stack([_smooth(part) for part in values])
