"""Paste a surrogate into a photo so that the result looks natural.

The surrogate is turned to the pose of the face (`release.pose`) and keeps its own proportions and outline, because the
outline of a face alone can identify a person. The surroundings are warped slightly, so that hair, ears and neck still
meet the new outline. Light and skin tone come from the covered face, as robustly fitted surfaces with few parameters:
they capture the direction of the light and the skin tone, but no features. The remaining seam is diffused inwards as
in Poisson blending (Pérez, Gangnet and Blake, "Poisson image editing", SIGGRAPH 2003), with the pull-and-push of
`frame` instead of a solver. Hair, glasses and other objects that cross the outline are ignored, because their colour
would bleed into the face.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

import detection
import frame
from frame import Mesh
from release.pose import Pose

#: Margin of the edited patch around the outline, as a share of the outline's size.
_MARGIN = 0.45
#: Distance from the outline within which the surroundings are warped, and the largest distance between the new outline
#: and the photo's, in face widths. If another face is this close, nothing is warped and the photo's outline is kept.
_REACH, _LARGEST_MOVE = 0.35, 0.12
#: Points per side of the grid on which displacements are computed.
_MOVE_GRID = 48
#: Covered share of the forehead that `detection.add_forehead` adds; the hair is above it.
_FOREHEAD = 0.72
#: Width of the soft edge at the jaw and at the forehead, in face widths.
_JAW_EDGE, _FOREHEAD_EDGE = 0.05, 0.12
#: A difference at the edge above about this (in grey levels) is not a seam but hair, glasses or a hand.
_SEAM = 18.0
#: Distance from the edge within which the correction of the seam fades, in face widths.
_SEAM_REACH = 0.25
#: Limits on the contrast taken from the covered face.
_CONTRAST = (0.75, 1.5)
#: Limits on the change of colourfulness: in dim or overexposed light, skin and lips are pale.
_COLOURFULNESS = (0.2, 1.2)
#: Widths of the blurs (pixels) between which detail is compared with the photo's. Detail is lowered if it exceeds the
#: photo's by this factor.
_BLURS, _LEAST_BLURRED = (1.0, 2.0, 4.0), 1.25
#: Largest amplification of the surrogate's finest detail, and largest amount of added grain in grey levels: only part
#: of a sharp photo's detail is grain.
_SHARPENING, _GRAIN = 1.6, 2.0
#: Mean absolute a and b (Lab) below which an image counts as grey.
_GREY = 2.5
#: Difference from smooth skin (Lab) above which a surrogate's forehead shows hair; the width of the soft border of the
#: cleaned area at brows and eyes, in face widths; and how far the area reaches below the nose bridge (see `_level`).
_UNLIKE_SKIN, _CLEAN_EDGE, _CLEAN_BELOW = 6.0, 0.06, 0.15
#: Difference from smooth skin (Lab) that is not skin, even in light from the side.
_COVERED = 20.0
#: When a grey surrogate gets a skin tone: how much redder the lips are (Lab), and the eyes' share of the colour.
_LIPS, _EYES = 7.0, 0.35
#: Number of colour patches per side that remain of a blurred-out area.
_BLUR_PATCHES = 4

#: A face from ear to ear and from bridge to chin covers at least this share of its longer side squared, and is at most
#: this many times as large as the photo.
_LEAST_AREA, _LARGEST_FACE = 0.01, 4

_OUTER_LIPS, _INNER_LIPS = slice(48, 60), slice(60, 68)


def paste(
    photo: np.ndarray,
    landmarks: np.ndarray,
    surrogate: np.ndarray,
    surrogate_landmarks: np.ndarray,
    others: Sequence[np.ndarray] = (),
    random_state: int = 0,
) -> np.ndarray:
    """Replace one face in a photo.

    Parameters
    ----------
    photo : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)
        Landmarks of the face to replace, in pixels of the photo.
    surrogate : ndarray of uint8, shape (H, W, 3)
        A face of any size. If it is grey and the photo is not, it gets the skin tone of the covered face.
    surrogate_landmarks : ndarray, shape (68, 2)
    others : sequence of arrays (m, 2), optional
        Points on the other faces in the photo. If one is near, nothing around the face is warped.
    random_state : int, default 0
        Seed for the grain, which is added if the photo has more of it than the surrogate.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        The photo with the new face; unchanged beyond the distance `_REACH`.

    Raises
    ------
    ValueError
        If landmarks are not finite, lie in one point or line, or far from the photo.
    """
    _check_landmarks(landmarks, photo)
    _check_landmarks(surrogate_landmarks, surrogate)
    # Work on a patch around the face, which may reach beyond the photo. (h, w, 3), (h, w)
    top, bottom, left, right = _window(landmarks)
    part, known = _cut_patch(photo, top, bottom, left, right)
    points = landmarks - [left, top]
    # Place the surrogate's landmarks, and warp the surroundings to meet its outline.
    target = _fit_shape(points, surrogate_landmarks)
    if _crowded(landmarks, others):
        target[detection.JAW] = points[detection.JAW]
    else:
        part = _make_room(part, points, target)
    # Draw the surrogate there, match its light, tone, edge and sharpness, and blend it into the patch.
    low, high = _outline(target).min(axis=0) - 2, _outline(target).max(axis=0) + 3
    rows = slice(max(int(low[1]), 0), int(high[1]))
    columns = slice(max(int(low[0]), 0), int(high[0]))
    drawn = _draw(
        surrogate, surrogate_landmarks, part[rows, columns], known[rows, columns],
        target - [columns.start, rows.start], np.random.default_rng(random_state),
    )  # fmt: skip
    part[rows, columns] = drawn
    # Put the patch back.
    result = photo.copy()
    inside = result[max(top, 0) : bottom, max(left, 0) : right]
    inside[...] = np.clip(np.rint(part[known]), 0, 255).reshape(inside.shape)
    return result


def _check_landmarks(landmarks: np.ndarray, image: np.ndarray) -> None:
    """Raise ValueError unless landmarks (68, 2) can show a face on an image (h, w, 3)."""
    if not np.isfinite(landmarks).all():
        raise ValueError("the landmarks of a face are not finite")
    across, down = landmarks[16] - landmarks[0], landmarks[8] - landmarks[27]
    area = abs(across[0] * down[1] - across[1] * down[0])
    if area < _LEAST_AREA * np.ptp(landmarks, axis=0).max() ** 2 or np.ptp(landmarks) == 0:
        raise ValueError("the landmarks of a face lie in one point or line")
    if np.ptp(landmarks, axis=0).max() > _LARGEST_FACE * max(image.shape[:2]):
        raise ValueError("the landmarks of a face reach far beyond the photo")


def _draw(
    surrogate: np.ndarray,
    surrogate_landmarks: np.ndarray,
    part: np.ndarray,
    known: np.ndarray,
    target: np.ndarray,
    random: np.random.Generator,
) -> np.ndarray:
    """Draw a surrogate over a part of a photo, float32 (h, w, 3), with its landmarks at `target` (68, 2).

    `known`, bool (h, w), is where the part lies in the photo.
    """
    texture = _warp(surrogate, surrogate_landmarks, target, *part.shape[:2])
    alpha = _soft_mask(target, *part.shape[:2])
    seen = np.where(known, alpha, 0)
    matched = _match_tone(texture, part, target, alpha, seen)
    matched = _close_seam(matched, part, seen, _SEAM_REACH * _face_width(target))
    matched = _match_sharpness(matched, part, seen)
    matched = _add_grain(matched, part, seen, random)
    return matched * alpha[..., None] + part * (1 - alpha[..., None])


def _window(landmarks: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the patch around a face; it may reach beyond the photo."""
    outline = detection.add_forehead(landmarks)
    low, high = outline.min(axis=0), outline.max(axis=0)
    margin = _MARGIN * (high - low).max()
    left, top = np.floor(low - margin).astype(int)
    right, bottom = np.ceil(high + margin).astype(int) + 1
    return top, bottom, left, right


def _cut_patch(
    photo: np.ndarray, top: int, bottom: int, left: int, right: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a patch out of a photo, float32 (h, w, 3), and say where the photo covers it (h, w).

    Beyond the border the photo's edge continues.
    """
    height, width = photo.shape[:2]
    rows, columns = np.arange(top, bottom), np.arange(left, right)
    known = np.logical_and.outer((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
    part = photo[np.clip(rows, 0, height - 1)][:, np.clip(columns, 0, width - 1)]
    return part.astype(np.float32), known


def _fit_shape(landmarks: np.ndarray, surrogate_landmarks: np.ndarray) -> np.ndarray:
    """Place the surrogate's landmarks on the photo: in its own proportions, in the photo's pose.

    Parameters
    ----------
    landmarks, surrogate_landmarks : ndarray, shape (68, 2)

    Returns
    -------
    ndarray of float64, shape (68, 2)
        No point of the jaw line is further than `_LARGEST_MOVE` face widths from the photo's.
    """
    in_space = Pose.fit(surrogate_landmarks).lift(surrogate_landmarks)
    target = Pose.fit(landmarks).see(in_space)
    move = target[detection.JAW] - landmarks[detection.JAW]
    largest = _LARGEST_MOVE * _face_width(landmarks)
    length = np.linalg.norm(move, axis=1, keepdims=True)
    share = np.minimum(1, largest / np.maximum(length, 1e-9))
    target[detection.JAW] = landmarks[detection.JAW] + move * share
    return target


def _face_width(landmarks: np.ndarray) -> float:
    return float(np.linalg.norm(landmarks[16] - landmarks[0]))


def _crowded(landmarks: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    """Whether another face is inside the area that would be warped."""
    edge, reach = _outline(landmarks), _REACH * _face_width(landmarks)
    return any(cv2.pointPolygonTest(edge, (float(x), float(y)), True) > -reach for o in others for x, y in o)


def _make_room(part: np.ndarray, points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Warp the surroundings of a face to meet a new outline.

    Each pixel moves with the nearest points of the outline; the displacement fades to zero at the distance `_REACH`.

    Parameters
    ----------
    part : ndarray of float32, shape (h, w, 3)
    points, target : ndarray, shape (68, 2)
        Landmarks of the face in the patch, and of the face that will be drawn.

    Returns
    -------
    ndarray of float32, shape (h, w, 3)
    """
    height, width = part.shape[:2]
    # Points around both faces. (24, 2) each
    ring = [np.vstack([p[detection.JAW], _forehead(p)]) for p in (points, target)]
    # On a coarse grid, average the displacements of these points, weighted by proximity. (g, g, 2)
    columns, rows = np.meshgrid(np.linspace(0, width - 1, _MOVE_GRID), np.linspace(0, height - 1, _MOVE_GRID))
    grid = np.dstack([columns, rows]).astype(np.float32)  # (g, g, 2)
    squared = ((grid[:, :, None] - ring[1]) ** 2).sum(axis=3)  # (g, g, 24)
    weight = 1 / (squared + (0.1 * _face_width(target)) ** 2) ** 2
    move = (weight / weight.sum(axis=2, keepdims=True)) @ (ring[0] - ring[1])
    # Fade them with the distance from the outline.
    share = np.clip(1 - _outside(grid, ring[1]) / (_REACH * _face_width(target)), 0, 1)  # (g, g)
    move *= (share * share * (3 - 2 * share))[..., None]
    # Interpolate them at each pixel, and sample the patch there. (h, w, 2)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    places = ((_MOVE_GRID - 1) * side / max(n - 1, 1) for side, n in ((x, width), (y, height)))
    move = cv2.remap(move.astype(np.float32), *places, cv2.INTER_LINEAR)
    x, y = x + move[..., 0], y + move[..., 1]
    moved = cv2.remap(part, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    still = np.abs(move).max(axis=2, keepdims=True) < 0.01
    return np.where(still, part, np.clip(moved, 0, 255))


def _outside(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Distance of points (..., 2) from the convex hull of others (m, 2); 0 inside it."""
    start = cv2.convexHull(ring.astype(np.float32))[:, 0]  # (e, 2)
    side = np.roll(start, -1, axis=0) - start
    away = points[..., None, :] - start  # (..., e, 2)
    along = np.clip((away * side).sum(axis=-1) / np.maximum((side * side).sum(axis=-1), 1e-9), 0, 1)
    distance = np.linalg.norm(away - along[..., None] * side, axis=-1).min(axis=-1)
    turn = side[:, 0] * away[..., 1] - side[:, 1] * away[..., 0]
    inside = (turn >= 0).all(axis=-1) | (turn <= 0).all(axis=-1)
    return np.where(inside, 0, distance)


def _warp(
    surrogate: np.ndarray, surrogate_landmarks: np.ndarray, target: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Warp the surrogate to other landmarks with a piecewise affine map: float32 (height, width, 3)."""
    mesh = Mesh.over(target, height, width)
    back = detection.similarity(target, surrogate_landmarks)
    border = detection.move_points(mesh.border, back)
    source = np.vstack([detection.add_forehead(surrogate_landmarks), border])
    positions = mesh.source_positions(target, source, height, width)
    texture, visible = frame.sample(surrogate, positions)
    return frame.continue_outward(texture, visible.astype(np.float32))


def _forehead(landmarks: np.ndarray) -> np.ndarray:
    """Seven points on the forehead (7, 2); for a turned head they stay between the ends of the jaw line."""
    left, right, bridge = landmarks[[0, 16, 27]]
    across = (right - left) / max(float(np.linalg.norm(right - left)), 1e-9)
    shift = (((left + right) / 2 - bridge) @ across) * across
    return detection.add_forehead(landmarks)[68:] + shift


def _outline(landmarks: np.ndarray, forehead: float = 1.0) -> np.ndarray:
    """Return the outline of a face, i.e. the jaw line and a share of the forehead: (m, 2)."""
    arc = _forehead(landmarks)
    up = (landmarks[27] - landmarks[8]) / max(float(np.linalg.norm(landmarks[27] - landmarks[8])), 1e-9)
    height = (arc - (landmarks[0] + landmarks[16]) / 2) @ up  # above the line between the ends of the jaw

    lowered = arc - (1 - forehead) * np.outer(height, up)
    return cv2.convexHull(np.vstack([landmarks, lowered]).astype(np.float32))[:, 0]


def _fill(points: np.ndarray, height: int, width: int) -> np.ndarray:
    area = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(area, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
    return area


def _soft_mask(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mask of the face: 1 inside, 0 outside, with a soft edge inside the outline: float32 (height, width)."""
    area = _fill(_outline(landmarks, _FOREHEAD), height, width)
    area[0], area[-1], area[:, 0], area[:, -1] = 0, 0, 0, 0
    inside = cv2.distanceTransform(area, cv2.DIST_L2, 5)

    share = np.clip(
        _level(landmarks, height, width) / 0.3, 0, 1
    )  # 0 at the nose bridge, 1 at the brows and above
    edge = _face_width(landmarks) * (_JAW_EDGE + share * (_FOREHEAD_EDGE - _JAW_EDGE))
    rise = np.clip(inside / np.maximum(edge, 1.0), 0, 1)
    return (rise * rise * (3 - 2 * rise)).astype(np.float32)


# ----------------------------------------------------------------------------------------------------------
# Colour and light
# ----------------------------------------------------------------------------------------------------------


def _to_lab(rgb: np.ndarray) -> np.ndarray:
    """Convert RGB in 0 to 255 to Lab with L in 0 to 100: float32 (h, w, 3)."""
    return cv2.cvtColor(np.clip(rgb, 0, 255).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)


def _to_rgb(lab: np.ndarray) -> np.ndarray:
    return np.clip(cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_Lab2RGB), 0, 1) * 255


def _match_tone(
    texture: np.ndarray, part: np.ndarray, target: np.ndarray, alpha: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """Give the surrogate (h, w, 3) the light, contrast and skin tone of the face that it covers.

    `alpha` and `seen` (h, w) are masks of the face and of the part of it that the photo shows.
    """
    surrogate, photo = _to_lab(texture), _to_lab(part)
    skin = _skin(target, seen)
    if skin.sum() < 16:
        return texture
    surrogate = _clean_forehead(surrogate, target, _skin(target, alpha))
    # Match the contrast of the lightness, then its gradient over the face (a paraboloid).
    contrast = np.clip(_spread(photo[..., 0][skin]) / max(_spread(surrogate[..., 0][skin]), 1e-3), *_CONTRAST)
    light = np.median(surrogate[..., 0][skin])
    result = surrogate.copy()
    result[..., 0] = light + (surrogate[..., 0] - light) * contrast
    result[..., 0] += _surface(skin, (photo[..., 0] - result[..., 0])[skin], degree=2)
    # Match the colour (planes of a and b); grey photos get a grey face.
    colour = [np.abs(picture[..., 1:][skin]).mean() for picture in (photo, surrogate)]
    if colour[0] < _GREY:
        result[..., 1:] = 0
        return _to_rgb(result)
    result[..., 1:] *= np.clip(colour[0] / max(colour[1], 1e-3), *_COLOURFULNESS)
    for channel in (1, 2):
        difference = (photo[..., channel] - result[..., channel])[skin]
        result[..., channel] += _surface(skin, difference, degree=1)
    _colour_features(result, target, float(np.clip(1 - colour[1] / colour[0], 0, 1)))
    return _to_rgb(result)


def _skin(target: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Area where most faces show skin, inside the edge and without eyes, brows and mouth: bool (h, w)."""
    area = (alpha > 0.9).astype(np.uint8)
    for part in (
        np.vstack([target[17:22], target[detection.LEFT_EYE]]),
        np.vstack([target[22:27], target[detection.RIGHT_EYE]]),
        target[_OUTER_LIPS],
    ):
        cv2.fillConvexPoly(area, cv2.convexHull(np.rint(part).astype(np.int32)), 0)
    return area.astype(bool)


def _clean_forehead(lab: np.ndarray, target: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Replace hair on the forehead and temples of a surrogate (h, w, 3) by skin.

    Members' hairlines differ, so that mixtures have shreds of hair there; on another head they look like dirt.
    """
    smooth = np.dstack([_surface(skin, lab[..., channel][skin], degree=1) for channel in range(3)])
    unlike = np.linalg.norm(lab - smooth, axis=2) / _UNLIKE_SKIN
    height, width = skin.shape
    features = _fill(cv2.convexHull(target[17:].astype(np.float32))[:, 0], height, width)
    away = cv2.distanceTransform(1 - features, cv2.DIST_L2, 5) / (_CLEAN_EDGE * _face_width(target))
    above = (_level(target, height, width) + _CLEAN_BELOW) / _CLEAN_BELOW
    share = np.clip(unlike - 1, 0, 1) * np.clip(away, 0, 1) * np.clip(above, 0, 1)
    share = cv2.GaussianBlur(share.astype(np.float32), (0, 0), max(1.0, 0.01 * _face_width(target)))
    return lab + (smooth - lab) * share[..., None]


def covered_share(image: np.ndarray, landmarks: np.ndarray) -> float:
    """Share of a face's skin that something covers: sunglasses, a mask, hair or a deep shadow.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)

    Returns
    -------
    float
        Share of the pixels that differ in lightness or colour from smooth skin; 1 for a face that is too small.
    """
    skin = _skin(landmarks, _soft_mask(landmarks, *image.shape[:2]))
    if skin.sum() < 16:
        return 1.0
    lab = _to_lab(image)
    smooth = np.dstack([_surface(skin, lab[..., channel][skin], degree=1) for channel in range(3)])
    return float((np.linalg.norm(lab - smooth, axis=2)[skin] > _COVERED).mean())


def _level(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Height of each pixel in the face: 0 at the nose bridge, 1 as far above it as the chin is below: (h, w)."""
    up = landmarks[27] - landmarks[8]
    up = up / max(float(up @ up), 1e-9)
    x, y = np.arange(width) - landmarks[27, 0], np.arange(height) - landmarks[27, 1]
    return (x * up[0] + (y * up[1])[:, None]).astype(np.float32)


def _spread(values: np.ndarray) -> float:
    low, high = np.percentile(values, [20, 80])
    return float(high - low)


def _surface(area: np.ndarray, values: np.ndarray, degree: int) -> np.ndarray:
    """Fit a plane (degree 1) or paraboloid (2) robustly to values in an area, and continue it over the picture.

    `area` is bool (h, w), `values` holds one number for each of its pixels; returns float32 (h, w).
    Least squares with five rounds of Tukey's biweight, so that a beard or glasses have little effect.
    """
    step = max(1, len(values) // 4000)
    rows, columns = (places[::step] for places in np.nonzero(area))
    values = values[::step].astype(np.float64)
    middle = np.array([columns.mean(), rows.mean()])
    size = max(float(max(np.ptp(columns), np.ptp(rows))) / 2, 1e-9)

    def terms(columns, rows):
        x, y = (columns - middle[0]) / size, (rows - middle[1]) / size
        return [1.0, x, y] + ([x * x, x * y, y * y] if degree == 2 else [])

    design = np.stack(np.broadcast_arrays(*terms(columns, rows)), axis=-1)  # (m, 3 or 6)
    weight = np.ones(len(values))
    ridge = 1e-3 * len(values) * np.diag([0.0, *np.ones(design.shape[1] - 1)])
    for _ in range(5):
        gram = (design * weight[:, None]).T @ design + ridge
        coefficients = np.linalg.solve(gram, (design * weight[:, None]).T @ values)
        residual = values - design @ coefficients
        width = 4.685 * max(1.4826 * float(np.median(np.abs(residual))), 1.0)
        weight = np.maximum(1 - (residual / width) ** 2, 0) ** 2
    # Outside the visible skin a paraboloid diverges: use its value at the border.
    height, width = area.shape
    x = np.clip(np.arange(width, dtype=np.float32), columns.min(), columns.max())
    y = np.clip(np.arange(height, dtype=np.float32), rows.min(), rows.max())[:, None]
    surface = sum(np.float32(c) * term for c, term in zip(coefficients, terms(x, y), strict=True))
    return np.broadcast_to(surface, area.shape).astype(np.float32)


def _colour_features(lab: np.ndarray, target: np.ndarray, share: float) -> None:
    """Redden the lips and whiten the eyes in place, by the share (0 to 1) of colour that the skin tone added."""
    height, width = lab.shape[:2]
    soft = max(1.0, 0.012 * _face_width(target))
    lips = _fill(target[_OUTER_LIPS], height, width).astype(np.float32)
    lips -= _fill(target[_INNER_LIPS], height, width)
    eyes = sum(_fill(target[side], height, width) for side in (detection.LEFT_EYE, detection.RIGHT_EYE))
    lips = cv2.GaussianBlur(np.clip(lips, 0, 1), (0, 0), soft)
    eyes = cv2.GaussianBlur(np.clip(eyes, 0, 1).astype(np.float32), (0, 0), soft)
    lab[..., 1] += share * _LIPS * lips
    lab[..., 1:] *= (1 - share * (1 - _EYES) * eyes)[..., None]


def _close_seam(matched: np.ndarray, part: np.ndarray, seen: np.ndarray, reach: float) -> np.ndarray:
    """Diffuse the difference along the edge over the face; it fades within `reach` pixels: float32 (h, w, 3)."""
    edge = 4 * seen * (1 - seen)
    difference = part - matched
    largest = np.abs(difference).max(axis=2)
    believable = 1 / (1 + (largest / _SEAM) ** 4)
    weight = (edge * believable).astype(np.float32)
    if weight.max() < 0.05:
        return matched
    diffused = frame.continue_outward(difference.astype(np.float32), np.clip(weight, 0, 1))
    depth = cv2.distanceTransform((seen > 0.9).astype(np.uint8), cv2.DIST_L2, 5)
    return matched + diffused * np.clip(1 - depth / reach, 0, 1)[..., None]


def _match_sharpness(matched: np.ndarray, part: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Blur the surrogate if the photo is blurred: lower its detail, band by band, to that of the covered face."""
    inside = seen > 0.9
    if inside.sum() < 16:
        return matched
    result, own, other = matched, matched, part
    for blur in _BLURS:
        coarse, other_coarse = (cv2.GaussianBlur(image, (0, 0), blur) for image in (own, other))
        band = own - coarse
        level, wanted = (float(np.abs(one[inside]).mean()) for one in (band, other - other_coarse))
        result = result - (1 - min(1.0, _LEAST_BLURRED * wanted / max(level, 1e-3))) * band
        own, other = coarse, other_coarse
    return result


def _add_grain(matched: np.ndarray, part: np.ndarray, alpha: np.ndarray, random) -> np.ndarray:
    """Raise the finest detail to the photo's level: amplify the surrogate's own, then add grain, each up to a limit."""
    inside = alpha > 0.9
    if inside.sum() < 16:
        return matched
    own = _grain(matched)
    wanted, there = (1.4826 * float(np.median(np.abs(part[inside]))) for part in (_grain(part), own))
    gain = float(np.clip(wanted / max(there, 1e-3), 1.0, _SHARPENING))
    result = matched + (gain - 1) * own[..., None]
    strength = min(np.sqrt(max(wanted**2 - (gain * there) ** 2, 0.0)), _GRAIN)
    if strength < 0.3:
        return result
    noise = random.normal(0, 1, alpha.shape).astype(np.float32)
    noise *= strength / max(1.4826 * float(np.median(np.abs(_grain(noise[..., None])))), 1e-6)
    return result + noise[..., None]


def _grain(image: np.ndarray) -> np.ndarray:
    """Return the finest detail of an image: (h, w, c) -> (h, w)."""
    level = cv2.transform(image.astype(np.float32), np.full((1, image.shape[2]), 1 / image.shape[2]))
    return level - cv2.GaussianBlur(level, (0, 0), 1.0)


# ----------------------------------------------------------------------------------------------------------
# Faces that are not replaced
# ----------------------------------------------------------------------------------------------------------


def blur_out(photo: np.ndarray, box: np.ndarray, landmarks: np.ndarray | None = None) -> np.ndarray:
    """Make a head unrecognisable: reduce an ellipse around it to 4 x 4 patches of colour.

    Parameters
    ----------
    photo : ndarray of uint8, shape (h, w, 3)
    box : array of 4 numbers
        left, top, right, bottom of the face in pixels, brows to chin; may extend beyond the photo.
    landmarks : ndarray, shape (68, 2), optional
        If they are outside the box, the ellipse grows to include them.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)

    Raises
    ------
    ValueError
        If box or landmarks are not finite, or the box is empty or outside the photo: nothing would be hidden.
    """
    # The ellipse around the head: the box, grown to the landmarks and beyond the brows.
    low, high = np.array(box[:2], dtype=float), np.array(box[2:], dtype=float)
    if not (np.isfinite([low, high]).all() and (low < high).all()):
        raise ValueError("the box of a face to blur out is empty or not finite")
    if (high <= 0).any() or (low >= photo.shape[1::-1]).any():
        raise ValueError("the box of a face to blur out is outside the photo")
    if landmarks is not None:
        if not np.isfinite(landmarks).all():
            raise ValueError("the landmarks of a face to blur out are not finite")
        size = (high - low).max()
        low = np.minimum(low, np.maximum(landmarks.min(axis=0), low - size / 2))
        high = np.maximum(high, np.minimum(landmarks.max(axis=0), high + size / 2))
    centre, radius = (low + high) / 2, (high - low) / 2 * [1.35, 1.45]
    centre = centre - [0, 0.12 * radius[1]]  # the box ends at the brows, the head does not
    left, top = np.maximum(np.floor(centre - 1.3 * radius), 0).astype(int)
    right, bottom = np.minimum(np.ceil(centre + 1.3 * radius) + 1, photo.shape[1::-1]).astype(int)
    # Reduce the area to a few patches, and enlarge them smoothly.
    part = photo[top:bottom, left:right]
    coarse = cv2.resize(part, (_BLUR_PATCHES, _BLUR_PATCHES), interpolation=cv2.INTER_AREA)
    smooth = cv2.resize(coarse, part.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
    distance = np.hypot((columns - centre[0]) / radius[0], (rows - centre[1]) / radius[1])
    alpha = np.clip((1.25 - distance) / 0.25, 0, 1)[..., None]  # full inside the ellipse, soft outside
    result = photo.copy()
    result[top:bottom, left:right] = np.rint(smooth * alpha + part * (1 - alpha)).astype(np.uint8)
    return result


def put_back(photo: np.ndarray, landmarks: np.ndarray, crop: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Paste a crop that a filter has changed (blur, mosaic or mask) back over the face.

    Parameters
    ----------
    photo : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)
        In pixels of the photo.
    crop : ndarray of uint8, shape (H, W, 3)
    transform : ndarray, shape (2, 3)
        Affine map from photo to crop.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
    """
    top, bottom, left, right = _window(landmarks)
    left, top = max(left, 0), max(top, 0)
    bottom, right = min(bottom, photo.shape[0]), min(right, photo.shape[1])
    back = cv2.invertAffineTransform(transform) - [[0, 0, left], [0, 0, top]]
    height, width = bottom - top, right - left
    drawn = cv2.warpAffine(crop, back, (width, height), borderMode=cv2.BORDER_REPLICATE)
    area = _fill(_outline(landmarks - [left, top]), height, width).astype(np.float32)[..., None]
    result = photo.copy()
    part = result[top:bottom, left:right]
    part[...] = np.rint(drawn * area + part * (1 - area)).astype(np.uint8)
    return result


def cover(photo: np.ndarray, landmarks: np.ndarray, colour: int = 127) -> np.ndarray:
    """Paint over a face from chin to hairline, to attack its surroundings alone: uint8 (h, w, 3)."""
    result = photo.copy()
    points = _outline(landmarks)
    centre = points.mean(axis=0)
    wider = centre + 1.08 * (points - centre)
    cv2.fillPoly(result, [np.rint(wider).astype(np.int32)], (colour,) * 3)
    return result
