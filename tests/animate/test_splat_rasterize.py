"""Images of Gaussians: one contract for every backend, then each of them against the slow reference."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from animate.splat import bounded
from animate.splat.project import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE
from animate.splat.rasterize import rasterize
from manifests.errors import InputError
from tests.animate.splat_scenes import cameras_around, scene

BACKENDS = ("dense", "bounded")
NAMES = ("means", "quats_wxyz", "scales", "opacities", "colors")


def _one_pixel(depths, opacities, colors, backend, **options):
    # Wide Gaussians one behind the other before the middle of a 1 x 1 image.
    c2w, K = cameras_around(1, 1)
    eye, back = c2w[0, :3, 3], c2w[0, :3, 2]
    depths, opacities, colors = (torch.tensor(values, dtype=torch.float64) for values in (depths, opacities, colors))
    means = (eye - depths[:, None] * back)[None]
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64).expand(len(depths), 4)
    scales = torch.full((len(depths), 3), 0.1, dtype=torch.float64)
    splats = rasterize(means, quats, scales, opacities, colors, c2w, K, (1, 1), backend=backend, **options)
    return splats.images[0, :, 0, 0].tolist(), splats.alphas.item()


def _with_gradients(drawn, size, backend, device="cpu"):
    leaves = [value.detach().clone().to(device).requires_grad_() for value in drawn[:5]]
    c2w, K = drawn.c2w.to(device), drawn.K.to(device)
    background = torch.linspace(0.2, 0.7, drawn.colors.shape[-1], dtype=drawn.means.dtype, device=device)
    images, alphas = rasterize(*leaves, c2w, K, size, background=background, backend=backend)
    generator = torch.Generator().manual_seed(5)
    weights = [torch.rand(values.shape, generator=generator).to(values) - 0.5 for values in (images, alphas)]
    ((images * weights[0]).sum() + (alphas * weights[1]).sum()).backward()
    found = dict(zip(NAMES, (leaf.grad for leaf in leaves), strict=True))
    return {name: value.detach().cpu() for name, value in {"images": images, "alphas": alphas, **found}.items()}


def _assert_same(found, expected, tolerance):
    for name, value in expected.items():
        worst = (found[name] - value).abs().max().item()
        assert worst <= tolerance * max(value.abs().max().item(), 1e-6), f"{name} differs by {worst}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearer_gaussians_cover_farther_ones(backend):
    """Formula: front to back, each takes its share of what the ones before it let through."""
    image, alpha = _one_pixel([1.2, 0.9], [0.5, 0.8], [[1.0, 0.0], [0.0, 1.0]], backend)
    assert image == pytest.approx([0.2 * 0.5, 0.8])
    assert alpha == pytest.approx(1 - 0.2 * 0.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_background_shows_through_what_is_not_covered(backend):
    """Formula: image + (1 - coverage) background; without a background, black."""
    background = torch.tensor([0.25, 0.5], dtype=torch.float64)
    image, alpha = _one_pixel([1.0], [0.6], [[1.0, 0.0]], backend, background=background)
    assert image == pytest.approx([0.6 + 0.4 * 0.25, 0.4 * 0.5])
    assert alpha == pytest.approx(0.6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_coverage_stops_at_the_thresholds(backend):
    """Formula: at most MAX_ALPHA; below MIN_ALPHA nothing; nothing that would leave MIN_TRANSMITTANCE or less."""
    _, alpha = _one_pixel([1.0], [1.0], [[1.0]], backend)
    assert alpha == pytest.approx(MAX_ALPHA)
    _, alpha = _one_pixel([1.0], [0.99 * MIN_ALPHA], [[1.0]], backend)
    assert alpha == 0
    # 0.1^3 is left after three; the fourth would leave 1e-4, and what comes after it is not counted either.
    assert 0.1**3 > MIN_TRANSMITTANCE >= 0.099**4
    image, alpha = _one_pixel([1.0, 1.1, 1.2, 1.3, 1.4], [0.9, 0.9, 0.9, 0.901, 0.1], [[1.0]] * 4 + [[9.0]], backend)
    assert alpha == pytest.approx(1 - 0.1**3)
    assert image == pytest.approx([1 - 0.1**3])


@pytest.mark.parametrize("backend", BACKENDS)
def test_order_of_gaussians_does_not_matter(backend):
    """Round trip: the same scene with its Gaussians shuffled, values and gradients."""
    drawn = scene(dtype=torch.float64)
    shuffle = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    shuffled = drawn._replace(
        means=drawn.means[:, shuffle], **{name: getattr(drawn, name)[shuffle] for name in NAMES[1:]}
    )
    first, second = (_with_gradients(values, (17, 17), backend) for values in (drawn, shuffled))
    first["means"] = first["means"][:, shuffle]
    first |= {name: first[name][shuffle] for name in NAMES[1:]}
    _assert_same(second, first, 1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_matches_finite_differences(backend):
    """Finite differences in float64, to all inputs, of a scene whose Gaussians cover each other."""
    drawn = scene(num_gaussians=5, num_images=2, size=6, seed=1, thickness=0.3)

    def images(*leaves):
        return rasterize(*leaves, drawn.c2w, drawn.K, (6, 7), backend=backend)

    leaves = [value.clone().requires_grad_() for value in drawn[:5]]
    # Coverage jumps at MIN_ALPHA: too small steps are safe from that, and float64 bears them.
    assert torch.autograd.gradcheck(images, leaves, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("thickness", [0.002, 0.05, 0.5])
def test_bounded_equals_dense_forward_and_gradient(seed, thickness):
    """Slow version: every Gaussian at every pixel, with torch's own gradient, in float64."""
    drawn = scene(num_gaussians=200, size=19, seed=seed, thickness=thickness, opacities=(0.0, 1.0))
    size = ((19, 19), (18, 23), (5, 9), (1, 40))[seed]
    _assert_same(_with_gradients(drawn, size, "bounded"), _with_gradients(drawn, size, "dense"), 1e-9)


def test_bounded_equals_dense_where_many_gaussians_fill_a_tile():
    """Slow version: more Gaussians than a group holds, nearly opaque, so that pixels fill up at different ones."""
    drawn = scene(num_gaussians=300, size=8, thickness=0.1, opacities=(0.2, 1.0))
    _assert_same(_with_gradients(drawn, (8, 8), "bounded"), _with_gradients(drawn, (8, 8), "dense"), 1e-9)


def test_bounded_equals_dense_in_single_precision():
    """Slow version: the reference, within float32's rounding."""
    drawn = scene(num_gaussians=200, size=33, dtype=torch.float32)
    _assert_same(_with_gradients(drawn, (33, 33), "bounded"), _with_gradients(drawn, (33, 33), "dense"), 1e-4)


def test_colors_and_shapes_may_differ_between_images():
    """Slow version: the reference, with quaternions, scales and five channels of each image."""
    drawn = scene(num_gaussians=40, num_images=3)
    generator = torch.Generator().manual_seed(9)
    colors = torch.rand(3, 40, 5, generator=generator, dtype=torch.float64)
    scales = drawn.scales * (0.5 + torch.rand(3, 40, 1, generator=generator, dtype=torch.float64))
    drawn = drawn._replace(colors=colors, scales=scales, quats_wxyz=drawn.quats_wxyz.repeat(3, 1, 1))
    _assert_same(_with_gradients(drawn, (17, 17), "bounded"), _with_gradients(drawn, (17, 17), "dense"), 1e-9)


def test_images_together_equal_images_one_by_one():
    """Round trip: a batch, and each of its images alone."""
    drawn = scene(num_images=3)
    together = rasterize(*drawn, (17, 17), backend="bounded").images
    for image in range(3):
        one = slice(image, image + 1)
        alone = drawn._replace(means=drawn.means[one], c2w=drawn.c2w[one], K=drawn.K[one])
        torch.testing.assert_close(rasterize(*alone, (17, 17), backend="bounded").images, together[one])


def test_gradient_is_the_same_when_nothing_is_kept_for_it(monkeypatch):
    """Round trip: what the forward pass keeps, and the same worked out again."""
    drawn = scene(opacities=(0.5, 1.0))
    kept = _with_gradients(drawn, (17, 17), "bounded")
    monkeypatch.setattr(bounded, "_KEPT_BYTES", 0)
    _assert_same(_with_gradients(drawn, (17, 17), "bounded"), kept, 1e-12)


@pytest.mark.parametrize("wanted", NAMES)
def test_only_wanted_gradients_are_given(wanted):
    """Slow version: the gradient to one input alone equals that among all."""
    drawn = scene()
    leaves = {name: getattr(drawn, name).clone().requires_grad_(name == wanted) for name in NAMES}
    rasterize(**leaves, c2w=drawn.c2w, K=drawn.K, size=(17, 17), backend="bounded").images.square().sum().backward()
    every = {name: getattr(drawn, name).clone().requires_grad_() for name in NAMES}
    rasterize(**every, c2w=drawn.c2w, K=drawn.K, size=(17, 17), backend="bounded").images.square().sum().backward()
    torch.testing.assert_close(leaves[wanted].grad, every[wanted].grad)
    assert all(leaf.grad is None for name, leaf in leaves.items() if name != wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gaussian_in_sight_gives_the_background(backend):
    """Formula: nothing drawn; no Gaussians at all, all far beside, all behind."""
    drawn = scene(num_gaussians=3)
    background = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    none = drawn._replace(means=drawn.means[:, :0], **{name: getattr(drawn, name)[:0] for name in NAMES[1:]})
    beside = drawn._replace(means=drawn.means + 50 * drawn.c2w[:, None, :3, 0])
    behind = drawn._replace(means=drawn.means + 5 * drawn.c2w[:, None, :3, 2])
    for empty in (none, beside, behind):
        empty = empty._replace(means=empty.means.clone().requires_grad_())
        splats = rasterize(*empty, (9, 11), background=background, backend=backend)
        torch.testing.assert_close(splats.images, background[:, None, None].expand(2, 3, 9, 11))
        splats.images.sum().backward()
        assert not empty.means.grad.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_gaussians_gone_astray_spoil_no_pixel(backend):
    """Formula: Gaussians that are nowhere leave the images as they are without them."""
    drawn = scene()
    astray = drawn.means.clone()
    astray[:, 0], astray[:, 1], astray[:, 2] = float("nan"), float("inf"), 1e30
    rest = drawn._replace(means=drawn.means[:, 3:], **{name: getattr(drawn, name)[3:] for name in NAMES[1:]})
    found = rasterize(*drawn._replace(means=astray), (17, 17), backend=backend)
    torch.testing.assert_close(found.images, rasterize(*rest, (17, 17), backend=backend).images)


def test_unknown_or_missing_backend_is_refused():
    """Rule: an InputError that names the choices; gsplat wants tensors on CUDA."""
    with pytest.raises(InputError, match="expected auto, dense, bounded or gsplat"):
        rasterize(*scene(), (5, 5), backend="fast")
    with pytest.raises(InputError, match="choose the backend bounded"):
        rasterize(*scene(), (5, 5), backend="gsplat")


@pytest.mark.gpu
def test_bounded_on_cuda_equals_the_processor():
    """Slow version: the same code on the processor."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    drawn = scene(num_gaussians=200, size=33, dtype=torch.float32)
    _assert_same(_with_gradients(drawn, (33, 33), "bounded", "cuda"), _with_gradients(drawn, (33, 33), "bounded"), 1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("thickness", [0.01, 0.1])
def test_gsplat_equals_dense_forward_and_gradient(thickness):
    """Foreign implementation: gsplat's kernels; opacities stay below what its versions clamp at."""
    if not torch.cuda.is_available() or importlib.util.find_spec("gsplat") is None:
        pytest.skip("needs a CUDA device and gsplat")
    drawn = scene(num_gaussians=200, size=33, dtype=torch.float32, thickness=thickness)
    _assert_same(_with_gradients(drawn, (33, 33), "gsplat", "cuda"), _with_gradients(drawn, (33, 33), "dense"), 1e-4)
