"""Whether views of the same moment show one and the same object, from the cameras that are known exactly.

Two scores, kept apart because they are not comparable: silhouettes alone (any method with alpha), and colours carried
from view to view through depth (renders of our own datasets). Neither needs weights, matches or more than one moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation

from eval.cards import Card
from eval.extractor import Clip
from eval.metric import Metric, NotScored, Score, Subject
from eval.silhouettes import has_silhouette, object_masks, sampled
from manifests.cameras import project

__all__ = ["METRICS"]

_SIDE = 128
"""Shorter side of the grid on which views are compared, pixels."""
_POINTS = 1024
"""Most object pixels of a view that are looked at, every n-th one."""
_STEPS = 192
"""Points on a ray; 1.4 pixels of the grid apart where the object is nearest."""
_DEPTH_TOLERANCE = 0.02
"""In normalised units, where the object's radius is 0.5: depths that agree."""


@dataclass(frozen=True, kw_only=True)
class _View:
    """One view on the grid.

    Attributes:
        masks: (frame, h, w) bool.
        colors: (frame, h, w, 3) uint8.
        depth: (frame, h, w) float32 or None.
        c2w, K: of the grid.
    """

    masks: np.ndarray
    colors: np.ndarray
    depth: np.ndarray | None
    c2w: np.ndarray
    K: np.ndarray

    def rays(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(point, 3) directions in space of pixel centres, of length 1 along the viewing axis."""
        x = (columns + 0.5 - self.K[0, 2]) / self.K[0, 0]
        y = (rows + 0.5 - self.K[1, 2]) / self.K[1, 1]
        return np.stack([x, -y, -np.ones_like(x)], -1) @ self.c2w[:3, :3].T

    def seen(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(inside, rows, columns, depth) of points in space; rows and columns are 0 outside the picture."""
        uv, depth = project(points, self.c2w, self.K)
        height, width = self.masks.shape[1:]
        inside = (depth > 0) & (uv >= 0).all(-1) & (uv[:, 0] < width) & (uv[:, 1] < height)
        columns, rows = np.where(inside[:, None], uv, 0).astype(int).T
        return inside, rows, columns, depth

    def chosen(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) of at most `_POINTS` object pixels, evenly spread over them."""
        rows, columns = np.nonzero(self.masks[frame])
        kept = slice(None, None, -(-len(rows) // _POINTS) or 1)
        return rows[kept], columns[kept]


def _silhouettes(subjects: Sequence[Subject]) -> Score:
    views = _views(subjects)
    wide = [np.stack([binary_dilation(mask, np.ones((3, 3))) for mask in view.masks]) for view in views]
    values: list[float] = []
    for t in range(len(views[0].masks)):
        if not any(view.masks[t].any() for view in views):
            continue
        if t and values and all(np.array_equal(view.masks[t], view.masks[t - 1]) for view in views):
            values.append(values[-1])
            continue
        shares = [_supported(views, wide, a, t) if view.masks[t].any() else 0.0 for a, view in enumerate(views)]
        values.append(float(np.mean(shares)))
    if not values:
        raise NotScored("found no object in any view, expected opaque pixels; check the alpha channel")
    return Score(value=float(np.mean(values)), frames=np.array(values), extra={"views": float(len(views))})


def _supported(views: list[_View], wide: list[np.ndarray], a: int, t: int) -> float:
    """Share of view a's object pixels on whose ray is a point that every other view has in its silhouette too.

    That point is in the visual hull. Beside its picture a view shows nothing, unless the border cuts the object there.
    """
    view = views[a]
    rows, columns = view.chosen(t)
    origin = view.c2w[:3, 3]
    middle = float(origin @ view.c2w[:3, 2])  # depth of the origin of normalised space
    depths = np.linspace(0.5 * middle, 1.5 * middle, _STEPS)
    points = (origin + view.rays(rows, columns)[:, None] * depths[:, None]).reshape(-1, 3)
    alive = np.arange(len(points))
    for b, other in enumerate(views):
        if b != a:
            inside, r, c, _ = other.seen(points[alive])
            alive = alive[np.where(inside, wide[b][t][r, c], _cut(other.masks[t]))]
    return len(np.unique(alive // _STEPS)) / len(rows)


def _cut(mask: np.ndarray) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _colors(subjects: Sequence[Subject]) -> Score:
    views = _views(subjects)
    if any(view.depth is None for view in views):
        raise NotScored("found views without depth, expected it in all; only our own datasets with depth bring it")
    values = []
    for t in range(len(views[0].masks)):
        agreed = [_carried(a, b, t) for a in views for b in views if a is not b]
        everything = np.concatenate(agreed) if agreed else np.empty(0)
        if len(everything):
            values.append(float(everything.mean()))
    if not values:
        raise NotScored("found no point that two views share, expected overlapping views; check cameras and depth")
    return Score(value=float(np.mean(values)), frames=np.array(values), extra={"views": float(len(views))})


def _carried(a: _View, b: _View, t: int) -> np.ndarray:
    """How well each point of view a that view b should see agrees with it, 0..1; hidden points are left out."""
    rows, columns = a.chosen(t)
    known = np.isfinite(a.depth[t][rows, columns])
    rows, columns = rows[known], columns[known]
    points = a.c2w[:3, 3] + a.rays(rows, columns) * a.depth[t][rows, columns, None]
    inside, r, c, depth = b.seen(points)
    last_row, last_column = b.masks.shape[1] - 1, b.masks.shape[2] - 1
    best = np.full(len(rows), np.inf)
    hidden = ~inside
    # The point lies between pixel centres: any of the nine around it may be the one that shows it.
    for dr, dc in np.ndindex(3, 3):
        place = np.clip(r + dr - 1, 0, last_row), np.clip(c + dc - 1, 0, last_column)
        there = b.depth[t][place]
        error = np.abs(a.colors[t][rows, columns].astype(float) - b.colors[t][place]).mean(-1) / 255
        best = np.where(np.abs(there - depth) <= _DEPTH_TOLERANCE, np.minimum(best, error), best)
        hidden |= there < depth - _DEPTH_TOLERANCE
    seen = np.isfinite(best)
    return np.where(seen, 1 - best, 0.0)[inside & (seen | ~hidden)]


def _views(subjects: Sequence[Subject]) -> list[_View]:
    if len(subjects) < 2:
        raise NotScored(f"found {len(subjects)} view, expected at least 2 of the same moments; give more views")
    lengths = sorted({subject.clip.num_frames for subject in subjects})
    if len(lengths) > 1:
        raise NotScored(f"found views of {', '.join(map(str, lengths))} frames, expected the same moments in all views")
    return [_view(subject.clip) for subject in subjects]


def _view(clip: Clip) -> _View:
    if clip.c2w is None or clip.K is None:
        raise NotScored(f"found no camera of view {clip.view}, expected c2w and K; use views that the protocol knows")
    if not has_silhouette(clip):
        raise NotScored(f"found no transparency in view {clip.view}, expected frames with alpha; deliver RGBA frames")
    height, width = clip.size
    scale = min(1.0, _SIDE / min(height, width))
    size = round(height * scale), round(width * scale)
    K = np.diag([size[1] / width, size[0] / height, 1.0]) @ clip.K
    depth = None if clip.depth is None else sampled(clip.depth, size)
    return _View(
        masks=object_masks(clip, size),
        colors=sampled(clip.frames, size),
        depth=depth,
        c2w=np.asarray(clip.c2w, float),
        K=K,
    )


METRICS: tuple[Metric, ...] = (
    Metric(
        card=Card(
            id="cross_view",
            version="mvvideo-1",
            title="Cross-view",
            formula="mean_t mean_a of the share of object pixels of view a on whose ray is a point that lies in the"
            " silhouettes of all other views: |visual hull seen from a| / |M_a|",
            preprocess="M: alpha > 127 at the pixel centres of a grid whose shorter side is at most 128; at most 1024"
            " pixels a view, 192 points a ray from 0.5 to 1.5 times the depth of the object's centre; other silhouettes"
            " are widened by one pixel of the grid; beside its picture a view shows nothing, unless the object touches"
            " the border",
            backbone="none",
            low=0.0,
            high=1.0,
            higher_is_better=True,
            needs=("alpha", "cameras"),
            level="object",
            source="ours; visual hull: Laurentini, IEEE TPAMI 16(2), 1994",
            failure_modes=(
                "Silhouettes only: faces or texture that differ between views are not seen.",
                "Few views, bulky objects and concavities leave room for errors.",
                "A frozen copy of true renders scores 1, and so does any other rendering of a real 3D object.",
                "More views are stricter; only rows of one protocol compare.",
            ),
        ),
        score=_silhouettes,
    ),
    Metric(
        card=Card(
            id="cross_view_color",
            version="mvvideo-1",
            title="Cross-view colour",
            formula="mean_t of the mean over ordered pairs of views (a, b) and object pixels of a that b should see of"
            " 1 - min mean_channels |I_a - I_b| / 255 over the 3x3 pixels of b around the point whose depth agrees; 0"
            " where none does, though none is in front either",
            preprocess="colours and depth at the pixel centres of a grid whose shorter side is at most 128; at most"
            " 1024 pixels a view; depths agree within 0.02; points behind what b sees are left out",
            backbone="none",
            low=0.0,
            high=1.0,
            higher_is_better=True,
            needs=("alpha", "cameras", "depth"),
            level="object",
            source="ours",
            failure_modes=(
                "Highlights move with the camera, so glossy objects score lower.",
                "Needs the renderer's depth, so it scores renders, not video models.",
                "Texture finer than three pixels of the grid is hardly compared.",
            ),
        ),
        score=_colors,
    ),
)
