"""Quality figures from pictures painted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from render.quality import Quality

SIZE = 10


def picture(color=(200, 100, 50), alpha: int = 255, box: tuple[int, int, int, int] = (2, 2, 7, 7)) -> np.ndarray:
    """A rectangle (left, top, right, bottom) of one colour on nothing."""
    image = np.zeros((SIZE, SIZE, 4), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = (*color, alpha)
    return image


def figures(*views: list[np.ndarray]) -> dict:
    quality = Quality()
    for frame in range(len(views[0])):  # as a clip is rendered: all views of a frame, then the next frame
        for view, images in enumerate(views):
            quality.add(view, images[frame])
    return quality.figures()


def test_coverage_is_the_share_of_solid_pixels():
    # Oracle: counted by hand; alpha 127 is not solid, 128 is.
    found = figures([picture(), picture(box=(0, 0, 10, 10)), picture(alpha=127), picture(alpha=128)])
    assert found["coverage_mean"] == pytest.approx((0.25 + 1 + 0 + 0.25) / 4)
    assert found["coverage_min"] == 0.0
    assert found["blank_images"] == 1


@pytest.mark.parametrize("box", [(0, 3, 4, 6), (6, 3, 10, 6), (3, 0, 6, 4), (3, 6, 6, 10)])
def test_any_trace_of_alpha_on_any_side_touches_the_border(box):
    # Oracle: painted on each side, as faint as can be.
    assert figures([picture(alpha=1, box=box), picture()])["border_images"] == 1
    assert figures([picture(), picture(box=(1, 1, 9, 9))])["border_images"] == 0


def test_missing_texture_is_the_share_of_magenta_among_solid_pixels():
    # Oracle: Blender's colour for a missing image, in light and in shade; pink, red and black are colours.
    half = picture((180, 0, 180))
    half[2:7, 2:4] = (30, 200, 30, 255)
    assert figures([half])["missing_texture"] == pytest.approx(15 / 25)
    for color in ((255, 120, 255), (255, 0, 0), (0, 0, 0), (255, 0, 128)):
        assert figures([picture(color)])["missing_texture"] == 0
    assert figures([picture(alpha=0, color=(0, 0, 0))])["missing_texture"] == 0


def test_flicker_is_zero_for_even_change_and_large_for_up_and_down():
    # Oracle: second differences by hand: grey 100, 200, 100 changes by 200 against an even way, a quarter of it counts.
    ramp = [picture((level,) * 3) for level in (50, 100, 150, 200)]
    assert figures(ramp)["flicker"] == pytest.approx(0, abs=1e-6)
    blink = [picture((level,) * 3) for level in (100, 200, 100)]
    assert figures(blink)["flicker"] == pytest.approx(50 / 255, abs=1e-4)
    assert figures(blink[:2])["flicker"] == 0


def test_views_do_not_flicker_against_each_other():
    # Oracle: a bright and a dark view, each of them still.
    assert figures([picture((250,) * 3)] * 4, [picture((10,) * 3)] * 4)["flicker"] == 0


def test_figures_are_plain_numbers_of_the_schema():
    # Oracle: the types that JSON keeps.
    found = figures([picture()] * 3)
    assert {type(found[name]) for name in ("border_images", "blank_images")} == {int}
    assert {type(found[n]) for n in ("coverage_mean", "coverage_min", "missing_texture", "flicker")} == {float}
