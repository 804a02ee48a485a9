"""k-Same-M: surrogates from an active appearance model (AAM).

Gross, Sweeney, de la Torre and Baker, "Model-based face de-identification", CVPR Workshops 2006 (k-Same-M);
Cootes, Edwards and Taylor, "Active appearance models", PAMI 23(6), 2001 (the model).

How members are mixed (`ActiveAppearanceModel._mix` and, below it, `_mix_textures`):

1. Each member's face is encoded as appearance parameters: landmarks ("shape") and aligned pixels ("texture"), each
   projected on principal components, then both together.
2. The surrogate's shape is the weighted mean of the members' shapes.
3. The surrogate's texture is mixed in the bands of a Laplacian pyramid (Burt and Adelson 1983). A plain mean of k faces
   shows ghosts: the glasses, moles and hairlines of single members at 1/k of their strength. So in the fine bands,
   detail that stands out from the typical face counts only as far as more than half of the members share it.
   A member whose photo is smaller than the frame has no fine detail and is left out of these bands. Colour comes from
   coloured photos alone.
4. Means lose contrast in fine detail. The strength of each fine band is raised towards the members' (Tiddeman, Burt and
   Perrett, "Prototyping and transforming facial textures for perception research", IEEE CG&A 21(5), 2001).
5. The texture is warped to the shape.

Arrays: k members, m photos to fit on, textures (h, w, c) of float32 grey levels, shapes (68, 2) in pixels of the frame.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise

import cv2
import numpy as np

import detection
import frame
from anonymizer.pixel import LinearModel, TextureSurrogates
from checks import check_number
from datasets import Faces
from frame import Mesh

#: Landmarks of the lower lip, and how far they are moved down in the reference shape, in mouth widths.
_LOWER_LIP = [55, 56, 57, 58, 59, 65, 66, 67]
_MOUTH_OPENING = 0.2

#: Small surrogates are drawn at this multiple of their size and then reduced; otherwise thin triangles leave specks.
_OVERSAMPLING = 3

#: The numbers of bands below hold for a frame of this width; each doubling of the width adds one.
_USUAL_WIDTH = 92
#: Bands of the pyramid (0 is the finest) in which outstanding detail needs a majority.
_ROBUST_BANDS = 4
#: Bands that decide whether a photo has outstanding detail at a pixel.
_JUDGED_BANDS = 3
#: Bands whose strength is restored, and the largest gain.
_RESTORED_BANDS, _LARGEST_GAIN = 3, 2.0
#: A photo that is enlarged more than this has no detail in the finest band, nor, if more than twice this, in the next.
#: A band needs this many members with detail; otherwise it shows the typical detail, not that of one or two people.
_ENLARGED, _DETAILED_MEMBERS = 1.4, 3
#: Detail stands out if it differs from the typical detail by more than this many robust standard deviations.
_OUTSTANDING = 2.0
#: How fast trust falls for detail that stands out.
_STEEPNESS = 4.0
#: Standard deviation, in pixels of the band, of the neighbourhood in which detail is judged as a whole.
_NEIGHBOURHOOD = 3.0
#: Rounds of reweighting the typical detail, and the ratio of the spread of all detail to that of trusted detail.
_REWEIGHTINGS, _TRIMMED = 2, 1.15
#: Differences below this many grey levels are noise.
_NOISE = 0.5
#: The typical detail is the median over at most this many photos and bytes, if possible only those with fine detail.
_MEDIAN_PHOTOS, _MEDIAN_BYTES, _FEWEST_MEDIAN_PHOTOS = 200, 64 << 20, 10
#: More than half, beyond rounding.
_MAJORITY = 0.5 + 1e-6
#: Mean difference of a channel from the mean of all, in grey levels, below which a photo is grey.
_GREY = 2.0


class ActiveAppearanceModel(TextureSurrogates):
    """Surrogates from linear models of shape, of texture, and of both combined, at the members' mean shape.

    Parameters
    ----------
    faces : Faces
    keep_shape, keep_texture, keep_combined : float, default 0.999, 0.999, 0.9999
        Share of the variance that each model keeps, above 0 and at most 1.
    **options
        As for `TextureSurrogates`.

    Attributes
    ----------
    shape_model, texture_model, combined_model : anonymizer.pixel.LinearModel
    shape_weight : float
        Grey levels that are worth one pixel of shape in the combined model (Cootes et al. 2001, section 2.1).
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
        self.keep = {"keep_shape": keep_shape, "keep_texture": keep_texture, "keep_combined": keep_combined}
        for name, share in self.keep.items():
            self.keep[name] = float(check_number(name, share, above=0, at_most=1))
        super().__init__(faces, **options)

    def _options(self) -> dict:
        return {**super()._options(), **self.keep}

    # Shape and texture of a photo

    @cached_property
    def mesh(self) -> Mesh:
        """The triangles over the frame."""
        return Mesh.over(self.reference, self.frame.height, self.frame.width)

    @cached_property
    def reference(self) -> np.ndarray:
        """The shape to which textures are warped: the mean shape with its mouth open, (68, 2).

        If the mouth were closed, the triangles between the lips would have no pixels for the teeth of an open mouth.
        """
        shape = self.frame.shape.copy()
        gap = _MOUTH_OPENING * np.linalg.norm(shape[54] - shape[48])
        down = (shape[8] - shape[27]) / np.linalg.norm(shape[8] - shape[27])
        shape[_LOWER_LIP] += gap * down
        return shape

    def shape(self, i: int) -> np.ndarray:
        """Return the landmarks of one photo in the frame: (68, 2)."""
        return detection.move_points(self.landmarks[i], self.frame.transform(self.landmarks[i]))

    def _warp(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        inverse = cv2.invertAffineTransform(self.frame.transform(self.landmarks[i]))
        source = detection.move_points(self.mesh.corners(self.shape(i)), inverse)  # in the photo
        positions = self.mesh.source_positions(self.reference, source, self.frame.height, self.frame.width)
        return frame.sample(self._photo(i), positions)

    # The model

    def _fit(self, textures: np.ndarray) -> None:
        rows = textures.reshape(len(textures), -1)  # (m, h * w * c)
        shapes = np.stack([self.shape(i).ravel() for i in self.training_rows])  # (m, 136)
        self.shape_model = LinearModel.fit(shapes, self.keep["keep_shape"])
        self.texture_model = LinearModel.fit(rows, self.keep["keep_texture"])
        # Weigh pixels of shape against grey levels, so that both vary equally.
        spread = [max(model.variances.sum(), 1e-12) for model in (self.texture_model, self.shape_model)]
        self.shape_weight = float(np.sqrt(spread[0] / spread[1]))
        parts = self._join(self.shape_model.encode(shapes), self.texture_model.encode(rows))
        self.combined_model = LinearModel.fit(parts, self.keep["keep_combined"])
        encoded = self.combined_model.encode(parts)  # (m, p)
        self._encoded = dict(zip(self.training_rows.tolist(), encoded, strict=True))
        self._learn_details(textures[self._detailed_rows()])

    @property
    def _extra_bands(self) -> int:
        """Number of bands that a frame of this width adds."""
        return max(0, round(float(np.log2(self.frame.width / _USUAL_WIDTH))))

    def _detailed_rows(self) -> np.ndarray:
        """Choose the training textures from which the typical detail is learnt: (p,)."""
        enlarged = np.array([self._enlargement(i) for i in self.training_rows])
        detailed = np.flatnonzero(enlarged <= _ENLARGED)
        if len(detailed) < _FEWEST_MEDIAN_PHOTOS:
            detailed = np.sort(np.argsort(enlarged, kind="stable")[:_FEWEST_MEDIAN_PHOTOS])
        limit = max(1, min(_MEDIAN_PHOTOS, _MEDIAN_BYTES // (4 * self.typical.size)))
        return detailed[:: -(-len(detailed) // limit)]

    def _enlargement(self, i: int) -> float:
        return self.frame.enlargement(self.landmarks[i])

    def _join(self, shape: np.ndarray, texture: np.ndarray) -> np.ndarray:
        return np.concatenate([self.shape_weight * shape, texture], axis=-1)

    def _learn_details(self, textures: np.ndarray) -> None:
        """Learn the typical detail at each pixel: its centre and spread over the photos (m, h, w, c), per band.

        Starts from the median and the median absolute deviation. If many photos have outstanding detail at one place
        (glasses), it still biases both, so the photos are weighted by their trust and both are computed again.
        """
        bands = self._stacked_pyramids(textures)
        robust = bands[:-1]
        self._typical_detail = [np.median(band, axis=0) for band in robust]
        # 1.4826 turns a median absolute deviation into a standard deviation.
        pairs = zip(robust, self._typical_detail, strict=True)
        deviations = [np.median(np.abs(band - centre), axis=0) for band, centre in pairs]
        self._spread = [_smooth(1.4826 * deviation) + _NOISE for deviation in deviations]
        for _ in range(_REWEIGHTINGS):
            trusts = self._trust(bands)
            for level, (band, trust) in enumerate(zip(robust, trusts, strict=True)):
                total = np.maximum(trust.sum(axis=0), 1e-6)
                centre = (trust * band).sum(axis=0) / total
                variance = (trust * (band - centre) ** 2).sum(axis=0) / total
                self._typical_detail[level] = centre
                self._spread[level] = _smooth(np.sqrt(variance)) * _TRIMMED + _NOISE
        self._usual_strength = [
            _smooth(np.abs(centre + trust * (band - centre)).mean(axis=0))
            for band, trust, centre in zip(robust, self._trust(bands), self._typical_detail, strict=True)
        ]

    def encode(self, i: int) -> np.ndarray:
        """Return the appearance parameters of one photo: (p,)."""
        if i not in self._encoded:
            shape = self.shape_model.encode(self.shape(i).ravel())
            texture = self.texture_model.encode(self.texture(i).ravel())
            self._encoded[i] = self.combined_model.encode(self._join(shape, texture))
        return self._encoded[i]

    def decode(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the shape (..., 68, 2) and texture (..., h, w, c) of appearance parameters (..., p)."""
        joined = self.combined_model.decode(parameters)
        n_shape, several = len(self.shape_model.basis), joined.shape[:-1]
        shape = self.shape_model.decode(joined[..., :n_shape] / self.shape_weight)
        texture = self.texture_model.decode(joined[..., n_shape:].astype(np.float32))
        return shape.reshape(*several, -1, 2), texture.reshape(*several, *self.typical.shape)

    def render(self, shape: np.ndarray, texture: np.ndarray) -> np.ndarray:
        """Draw a texture (h, w, c) at a shape (68, 2): uint8 (h, w, 3)."""
        height, width = self.frame.height, self.frame.width
        source = self.mesh.corners(self.reference)
        fineness = int(np.clip(round(_OVERSAMPLING * _USUAL_WIDTH / width), 1, _OVERSAMPLING))
        positions = self.mesh.source_positions(shape, source, height, width, fineness)
        fine = frame.sample(texture, positions)[0]
        drawn = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
        return frame.to_photo(drawn.reshape(texture.shape))

    # Mixing the members

    def _mix(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return self.render(*self.blend(members, weights))

    def blend(self, members: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mix members (k,) with weights (k,) that sum to 1; return the shape (68, 2) and the texture (h, w, c)."""
        # The textures as the model shows them, or as they are if it was not fitted to them. (k, 68, 2), (k, h, w, c)
        shapes, textures = self.decode(np.stack([self.encode(i) for i in members]))
        for position, i in enumerate(members):
            if i not in self._kept:
                textures[position] = self.texture(i)
        enlarged = np.array([self._enlargement(i) for i in members])
        mixed = self._mix_textures(textures, weights.astype(np.float32), enlarged)
        coloured = np.array([_is_coloured(texture) for texture in textures])
        if coloured.any() and not coloured.all():  # grey members lend lightness, but no colour
            weights_of_colour = np.where(coloured, weights, 0) / weights[coloured].sum()
            colour = np.einsum("k,khwc->hwc", weights_of_colour.astype(np.float32), textures)
            mixed = _lightness(mixed) + colour - _lightness(colour)
        return np.einsum("k,kij->ij", weights, shapes), mixed

    def _mix_textures(self, textures: np.ndarray, weights: np.ndarray, enlarged: np.ndarray) -> np.ndarray:
        """Mix textures band by band, without ghosts.

        Parameters
        ----------
        textures : ndarray of float32, shape (k, h, w, c)
        weights : ndarray of float32, shape (k,)
        enlarged : ndarray, shape (k,)
            How much each photo was enlarged.

        Returns
        -------
        ndarray of float32, shape (h, w, c)
        """
        bands = self._stacked_pyramids(textures)  # per band (k, h_b, w_b, c)
        trusts = self._trust(bands)
        # Average the coarsest band.
        mixed = [np.einsum("k,khwc->hwc", weights, bands[-1])]
        for level in reversed(range(len(bands) - 1)):
            typical = self._typical_detail[level]
            own = _share_of_detailed(weights, enlarged <= _ENLARGED * 2**level)
            if own is None:
                band, strength = typical.copy(), self._usual_strength[level]
            else:
                # Split each member's difference from the typical detail into a trusted and an outstanding part.
                difference = bands[level] - typical
                trusted = trusts[level] * difference  # (k, h_b, w_b, c)
                # Average the trusted part; keep the outstanding part only where a majority shares it.
                band = typical + np.einsum("k,khwc->hwc", own, trusted) + _majority(difference - trusted, own)
                strength = np.einsum("k,khwc->hwc", own, _smooth_each(np.abs(typical + trusted)))
            # Raise the strength of the fine bands towards the members' mean strength.
            if level < _RESTORED_BANDS + self._extra_bands:
                gain = strength / (_smooth(np.abs(band)) + 0.6 * _NOISE)
                band *= np.clip(gain, 1, _LARGEST_GAIN)
            mixed.insert(0, band)
        return _collapse(mixed)

    def _stacked_pyramids(self, textures: np.ndarray) -> list[np.ndarray]:
        """Laplacian pyramids of textures (k, h, w, c): one array (k, h_b, w_b, c) per band."""
        n_bands = _ROBUST_BANDS + self._extra_bands
        return [
            np.stack(band) for band in zip(*(_pyramid(texture, n_bands) for texture in textures), strict=True)
        ]

    def _trust(self, bands: list[np.ndarray]) -> list[np.ndarray]:
        """Trust in each member's detail at each pixel: 0 to 1, (k, h_b, w_b, 1) for each fine band."""
        k, height, width, _ = bands[0].shape
        # Sum over the bands how far detail exceeds the usual spread. (k, h, w)
        outstanding = np.zeros((k, height, width), dtype=np.float32)
        for level in range(min(_JUDGED_BANDS + self._extra_bands, len(bands) - 1)):
            deviation = np.abs(bands[level] - self._typical_detail[level]) / self._spread[level]
            excess = np.maximum(deviation.max(axis=3, keepdims=True) - _OUTSTANDING, 0)
            for member, part in enumerate(_smooth_each(excess)):
                outstanding[member] += cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
        # Convert it to trust, and reduce it to the size of each band.
        trust = 1 / (1 + (_STEEPNESS * outstanding) ** 2)
        sizes = [band.shape[2:0:-1] for band in bands[:-1]]
        return [
            np.stack([cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in trust])[..., None]
            for size in sizes
        ]

    # Following a photo

    def _mix_like(self, members: np.ndarray, weights: np.ndarray, like: int) -> np.ndarray:
        """Draw the members' mean face, changed by the difference of photo `like` from its person's other photos.

        Only landmarks and light come from the photo itself. Detail is predicted from the landmarks, as learnt from
        other people: the texture difference itself would restore glasses or a beard, slightly displaced.
        """
        # How the photo differs from its person's usual shape and light.
        shape, texture = self._usual(like)
        move = (self.shape(like) - shape).ravel()  # (136,)
        light = _plane(self.texture(like) - texture)  # (h, w, c)
        # The detail that usually comes with such a change of shape.
        detail = (self.shape_model.basis @ move) @ self._detail_of_move(self.faces.identities[like])
        detail = (detail.astype(np.float32) @ self.texture_model.basis).reshape(light.shape)
        # Mix people rather than photos, or the mean would keep the members' own expressions.
        parameters = np.stack([self._mean_of_person(i) for i in members])  # (k, p)
        shapes, textures = self.decode(parameters)  # (k, 68, 2), (k, h, w, c)
        mixed = self._mix_textures(textures, weights.astype(np.float32), np.ones(len(members)))
        shape = np.einsum("k,kij->ij", weights, shapes)
        return self.render(shape + move.reshape(-1, 2), mixed + (light + detail))

    def _photos_of(self, i: int) -> np.ndarray:
        """Rows of all photos of the person in photo `i`."""
        return np.flatnonzero(self.faces.identities == self.faces.identities[i])

    def _usual(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the usual shape (68, 2) of the person in photo `i`, and a reference texture (h, w, c) for the light.

        If the person has only one photo, the shape comes from `faces.others`, and the light is not compared.
        """
        own = self._photos_of(i)
        if len(own) > 1:
            shape = np.mean([self.shape(j) for j in own], axis=0)
            return shape, np.mean([self.texture(j) for j in own], axis=0)
        others = self.faces.others
        apart = [] if others is None else np.flatnonzero(others.identities == self.faces.identities[i])
        if len(apart) == 0:
            raise ValueError(
                f"photo {i} is the only photo of its person, so its expression cannot be separated from the person's "
                "features; omit `like`, or give several photos of each person"
            )
        landmarks = detection.detect(others.select(apart)).landmarks
        shapes = [detection.move_points(points, self.frame.transform(points)) for points in landmarks]
        return np.mean([self.shape(i), *shapes], axis=0), self.texture(i)

    def _detail_of_move(self, person: str) -> np.ndarray:
        """Learn how texture changes with shape, from all people except one: (shape components, texture components).

        Ridge regression on the differences between photos and their person's mean, without light.
        """
        people, moves, details = self._changes
        others = people != person
        strength = np.square(moves[others]).sum()
        if strength < 1e-9:  # nobody else, or one photo per person
            return np.zeros((len(self.shape_model.basis), len(self.texture_model.basis)))
        from sklearn.linear_model import RidgeCV  # slow to import

        ridge = RidgeCV(strength * np.logspace(-5, 1, 13), fit_intercept=False)
        return ridge.fit(moves[others], details[others]).coef_.T

    @cached_property
    def _changes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Person in each training photo (m,); how its shape and texture components differ from the person's mean."""
        rows = self.training_rows
        people = self.faces.identities[rows]
        moves = np.stack([self.shape(i).ravel() for i in rows]) @ self.shape_model.basis.T
        textures = [self.texture(i) for i in rows]
        details = np.stack([(part - _plane(part)).ravel() @ self.texture_model.basis.T for part in textures])
        for person in np.unique(people):
            for values in (moves, details):
                values[people == person] -= values[people == person].mean(axis=0)
        return people, moves, details

    def _mean_of_person(self, i: int) -> np.ndarray:
        return np.mean([self.encode(j) for j in self._photos_of(i)], axis=0)


def _plane(texture: np.ndarray) -> np.ndarray:
    """Fit a plane to each channel by least squares, as a model of directional light: (h, w, c)."""
    height, width, channels = texture.shape
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(rows), rows, columns], axis=-1).reshape(-1, 3)
    coefficients = np.linalg.lstsq(terms, texture.reshape(-1, channels), rcond=None)[0]
    return (terms @ coefficients).reshape(texture.shape).astype(np.float32)


def _majority(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the largest magnitude that more than half of the members reach, by weight, with its sign.

    Parameters
    ----------
    values : ndarray, shape (k, ...)
    weights : ndarray, shape (k,)
        Sum 1.

    Returns
    -------
    ndarray, shape (...)
        0 where no sign has a majority; the value itself for a single member.
    """
    values, weights = values[weights > 0], weights[weights > 0]
    if (weights == weights[0]).all():  # sorting takes a tenth of the time of sorting with weights
        ordered, first = np.sort(values, axis=0), np.argmax(np.cumsum(weights) > _MAJORITY)
        return np.maximum(ordered[-1 - first], 0) - np.maximum(-ordered[first], 0)
    # At most one of the two has a majority.
    return _reached(np.maximum(values, 0), weights) - _reached(np.maximum(-values, 0), weights)


def _reached(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the largest value that more than half of the members reach, by weight: (k, ...) -> (...)."""
    order = np.argsort(-values, axis=0, kind="stable")
    share = np.cumsum(weights[order], axis=0)
    first = np.argmax(share > _MAJORITY, axis=0)[None]
    return np.take_along_axis(np.take_along_axis(values, order, axis=0), first, axis=0)[0]


def _share_of_detailed(weights: np.ndarray, detailed: np.ndarray) -> np.ndarray | None:
    """Weights (k,) of the members that have detail in a band; None if they are too few."""
    if detailed.all():
        return weights
    if np.count_nonzero(weights[detailed]) < _DETAILED_MEMBERS:
        return None
    own = np.where(detailed, weights, 0)
    return (own / own.sum()).astype(np.float32)


def _lightness(texture: np.ndarray) -> np.ndarray:
    """Mean of the channels: (h, w, c) -> (h, w, 1)."""
    return texture.mean(axis=-1, keepdims=True)


def _is_coloured(texture: np.ndarray) -> bool:
    return bool(np.abs(texture - _lightness(texture)).mean() > _GREY)


def _pyramid(texture: np.ndarray, n_bands: int = _ROBUST_BANDS) -> list[np.ndarray]:
    """Laplacian pyramid of a texture (h, w, c): at most `n_bands` bands, fine to coarse, and the remainder."""
    levels = [texture]
    while len(levels) <= n_bands and min(levels[-1].shape[:2]) > 2:
        levels.append(frame.down(levels[-1]))
    return [*(fine - frame.up(coarse, fine.shape) for fine, coarse in pairwise(levels)), levels[-1]]


def _collapse(bands: list[np.ndarray]) -> np.ndarray:
    """Add up a Laplacian pyramid again: (h, w, c)."""
    texture = bands[-1]
    for band in reversed(bands[:-1]):
        texture = band + frame.up(texture, band.shape)
    return texture


def _smooth(values: np.ndarray) -> np.ndarray:
    """Average over a neighbourhood: (h, w, c)."""
    return cv2.GaussianBlur(values.astype(np.float32), (0, 0), _NEIGHBOURHOOD).reshape(values.shape)


def _smooth_each(values: np.ndarray) -> np.ndarray:
    """Average over a neighbourhood in each of (k, h, w, c)."""
    return np.stack([_smooth(part) for part in values])
