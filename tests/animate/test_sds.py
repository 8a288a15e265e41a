from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from animate.priors.prior import Guidance, Prediction, Prior
from animate.sds import mask_weights, sds_loss, timestep_of
from animate.shot import Footage, Shot, intrinsics_of
from manifests.errors import InputError

FORMS = ("clean", "noise")
VIEWS, FRAMES, CHANNELS, SIZE = 2, 4, 3, 4
PLAIN = Guidance()


class Knowing(Prior):
    """Knows the clean latents, whatever it is shown; the noise is what is then left."""

    name = "knowing"

    def __init__(self, truth: Tensor) -> None:
        self.truth = truth
        betas = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
        self.alphas_cumprod = (1 - betas).cumprod(0)

    def encode(self, images: Tensor) -> Tensor:
        return 2 * images - 1

    def clean(self, noisy: Tensor) -> Tensor:
        return self.truth

    def predict(self, noisy: Tensor, timestep: int, shot: Shot, guidance: Guidance) -> Prediction:
        alpha, clean = self.alpha(timestep), self.clean(noisy)
        return Prediction(clean, (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt())

    def film(self, shot: Shot, *, seed: int, told: Any = None) -> Footage:
        raise InputError("--prior knowing: found a request for a clip, expected none; it only judges latents")


class Everywhere(Knowing):
    """Predicts frame 0 as well, as text-to-video models do."""

    first_frame_clean: ClassVar[bool] = False


class Looking(Knowing):
    """Predicts from what it is shown, so that there is something to flow back through."""

    def clean(self, noisy: Tensor) -> Tensor:
        return self.truth + 0.3 * torch.sin(noisy)


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (VIEWS, FRAMES, CHANNELS, SIZE, SIZE), generator=generator, dtype=torch.float64)


@pytest.fixture
def shot() -> Shot:
    return Shot(
        prompt="moves",
        c2w=torch.eye(4).expand(VIEWS, 4, 4),
        K=intrinsics_of(torch.full((VIEWS,), 40.0), SIZE),
        size=SIZE,
        first=torch.zeros(VIEWS, 3, SIZE, SIZE),
        times_s=torch.arange(FRAMES) / 8.0,
    )


def gradient(prior: Prior, latents: Tensor, shot: Shot, form: str, **options: Any) -> Tensor:
    leaf = latents.detach().requires_grad_()
    options = {"timestep": 300, "noise": normal(9), "guidance": PLAIN} | options
    sds_loss(prior, leaf, shot, form=form, **options).loss.backward()
    return leaf.grad


def formula(prior: Knowing, latents: Tensor, form: str, weight: Tensor | float = 1.0, timestep: int = 300) -> Tensor:
    """The gradient as the papers print it, frame 0 left out where it is the condition."""
    alpha, noise = float(prior.alphas_cumprod[timestep]), normal(9)
    noisy = alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise
    clean = prior.clean(noisy).expand_as(latents)
    count = FRAMES - 1 if prior.first_frame_clean else FRAMES
    if form == "clean":  # released: over all images, times F / (F - 1)
        found = weight * (latents - clean) / (VIEWS * FRAMES) * (FRAMES / count)
    else:  # DreamFusion, equation 3, w = 1 - alpha_bar, each view a video
        residual = (noisy - alpha**0.5 * clean) / (1 - alpha) ** 0.5 - noise
        found = weight * (1 - alpha) * residual / VIEWS
    if prior.first_frame_clean:
        found[:, 0] = 0
    return found


@pytest.mark.parametrize("kind", [Knowing, Everywhere, Looking])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("masked", [False, True])
def test_sds_gradient_is_the_closed_formula(kind, form, masked, shot):
    """Against the papers' formulas restated; a prior that looks shows that nothing flows back through it."""
    prior, latents = kind(normal(0)), normal(1)
    weight = normal(2, VIEWS, FRAMES, 1, SIZE, SIZE).abs() if masked else None
    found = gradient(prior, latents, shot, form, weight=weight)
    expected = formula(prior, latents, form, 1.0 if weight is None else weight)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_sds_gradient_is_that_of_finite_differences(form, masked, shot):
    """Against central differences of m |z - z0|^2, weighted for the timestep: a prior that knows z0 has that energy."""
    prior, latents = Knowing(normal(0)), normal(1)
    weight = normal(2, VIEWS, FRAMES, 1, SIZE, SIZE).abs() if masked else torch.ones(VIEWS, FRAMES, 1, SIZE, SIZE)
    alpha = float(prior.alphas_cumprod[300])
    factor = 1 / (VIEWS * (FRAMES - 1)) if form == "clean" else (alpha * (1 - alpha)) ** 0.5 / VIEWS

    def energy(z: Tensor) -> float:
        if form == "clean":  # the loss is the energy itself
            return float(sds_loss(prior, z, shot, timestep=300, noise=normal(9), guidance=PLAIN, weight=weight).loss)
        return float(0.5 * factor * (weight * (z - prior.truth).square())[:, 1:].sum())

    found = gradient(prior, latents, shot, form, weight=weight)
    for index in [(0, 0, 0, 1, 1), (0, 1, 0, 0, 0), (1, 3, 2, 3, 1), (1, 2, 1, 2, 2)]:
        step = torch.zeros_like(latents)
        step[index] = 1e-4
        slope = (energy(latents + step) - energy(latents - step)) / 2e-4
        assert float(found[index]) == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_sds_reaches_parameters_through_the_renderer_alone(form, shot):
    """Against DreamFusion's equation 3 with the renderer's Jacobian written out: residual times dx / dtheta."""
    prior, mixing = Looking(normal(0)), normal(3, 5, normal(1).numel())

    def render(theta: Tensor) -> Tensor:
        return torch.tanh(theta @ mixing).view(VIEWS, FRAMES, CHANNELS, SIZE, SIZE)

    theta = 0.1 * normal(4, 5)
    leaf = theta.clone().requires_grad_()
    sds_loss(prior, render(leaf), shot, timestep=300, noise=normal(9), guidance=PLAIN, form=form).loss.backward()
    jacobian = torch.autograd.functional.jacobian(render, theta).flatten(0, -2)
    expected = formula(prior, render(theta), form).flatten() @ jacobian
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", [Knowing, Everywhere])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("timestep", [0, 20, 999])
def test_sds_has_its_fixed_point_at_the_truth(kind, form, timestep, shot):
    """Property: no gradient where the prior would have the latents as they are, for any noise and timestep."""
    truth = normal(0)
    found = gradient(kind(truth), truth, shot, form, timestep=timestep)
    assert float(found.abs().max()) < 1e-10


@pytest.mark.parametrize("form", FORMS)
def test_sds_descends_to_the_truth_and_leaves_frame_0(form, shot):
    """Property: the fixed point attracts, with new noise at each step; what is not predicted stays."""
    truth, start = normal(0).float(), normal(1).float()
    latents = start.clone().requires_grad_()
    prior, generator = Knowing(truth), torch.Generator().manual_seed(0)
    for step in range(60):
        noise = torch.randn(latents.shape, generator=generator)
        timestep = timestep_of((0.02, 0.98), "uniform", step, 60, generator, 1000)
        loss = sds_loss(prior, latents, shot, timestep=timestep, noise=noise, guidance=PLAIN, form=form).loss
        (grad,) = torch.autograd.grad(loss, latents)
        latents = (latents - (2.0 if form == "clean" else 1.0) * grad).detach().requires_grad_()
    found = latents.detach()
    assert float((found - truth)[:, 1:].abs().max()) < 1e-2
    assert torch.equal(found[:, 0], start[:, 0])


@pytest.mark.parametrize("form", FORMS)
def test_mask_silences_where_it_is_zero_and_nothing_else(form, shot):
    """Against the gradient without a mask, place by place."""
    prior, latents = Looking(normal(0)), normal(1)
    weight = torch.zeros(VIEWS, FRAMES, 1, SIZE, SIZE)
    weight[:, :, :, 1:3, 2:] = 1
    masked, whole = (gradient(prior, latents, shot, form, weight=mask) for mask in (weight, None))
    assert torch.equal(masked, whole * weight)
    assert float(masked[:, 1:, :, 1:3, 2:].abs().min()) > 0
    assert not gradient(prior, latents, shot, form, weight=0 * weight).any()


def test_sds_of_float32_latents_keeps_the_last_bit_of_a_small_gradient(shot):
    """Against the formula in float64: z - (z - gradient) in float32 would lose what is small beside z."""
    truth, far = normal(0).float(), 1e4
    prior = Knowing(truth + far)
    latents = prior.truth + 1e-2 * normal(1).float()
    noise = normal(9).float()
    found = gradient(prior, latents, shot, "noise", noise=noise)
    alpha = prior.alpha(300).float()
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    pred = prior.predict(noisy, 300, shot, PLAIN).noise
    expected = (1 - alpha) * (pred - noise) / VIEWS
    torch.testing.assert_close(found[:, 1:], expected[:, 1:].float(), rtol=1e-5, atol=0)


def test_sds_reports_where_the_prior_would_have_the_latents(shot):
    """Against what the prior knows; frame 0 is the condition and stays."""
    truth, latents = normal(0), normal(1)
    found = sds_loss(Knowing(truth), latents, shot, timestep=5, noise=normal(9), guidance=PLAIN)
    assert torch.equal(found.clean[:, 1:], truth[:, 1:])
    assert torch.equal(found.clean[:, 0], latents[:, 0])
    assert float(found.residual) == pytest.approx(float((latents - truth)[:, 1:].square().mean() ** 0.5))


@pytest.mark.parametrize("broken", [torch.zeros(VIEWS, FRAMES, CHANNELS, SIZE, SIZE + 1), normal(0) * float("nan")])
def test_sds_refuses_a_prior_of_the_wrong_shape_or_with_nan(broken, shot):
    """The error names the prior and what to do."""

    class Broken(Knowing):
        def predict(self, noisy: Tensor, timestep: int, shot: Shot, guidance: Guidance) -> Prediction:
            return Prediction(broken, broken)

    with pytest.raises(InputError, match=r"--prior knowing: found .*, expected .*;"):
        sds_loss(Broken(normal(0)), normal(1), shot, timestep=5, noise=normal(9), guidance=PLAIN)


# -- masks -------------------------------------------------------------------------------------------------------------


def test_mask_weights_normalise_each_frame_by_itself():
    """By definition: largest 1; smallest 0 and largest 1; mean 1; untouched."""
    attention = normal(0, 2, 3, 1, 4, 4).abs() * torch.tensor([1.0, 10.0, 0.1]).view(1, 3, 1, 1, 1)
    flat = (-3, -2, -1)
    torch.testing.assert_close(mask_weights(attention, "max").amax(flat), torch.ones(2, 3, dtype=torch.float64))
    stretched = mask_weights(attention, "minmax")
    torch.testing.assert_close(stretched.amax(flat), torch.ones(2, 3, dtype=torch.float64))
    assert not stretched.amin(flat).any()
    torch.testing.assert_close(mask_weights(attention, "mean").mean(flat), torch.ones(2, 3, dtype=torch.float64))
    assert torch.equal(mask_weights(attention, "none"), attention)


@pytest.mark.parametrize("normalization", ["max", "minmax", "mean"])
def test_mask_weights_of_flat_maps_are_one_and_of_empty_maps_zero(normalization):
    """Property: nothing is divided by zero, and a map without a preference changes nothing."""
    attention = torch.cat([torch.full((1, 1, 1, 3, 3), 0.013), torch.zeros(1, 1, 1, 3, 3)], 1)
    found = mask_weights(attention, normalization)
    torch.testing.assert_close(found[:, 0], torch.ones(1, 1, 3, 3))
    assert not found[:, 1].any()


# -- timesteps ---------------------------------------------------------------------------------------------------------


def drawn(share_range: tuple[float, float], schedule: str, step: int, number: int = 4000, total: int = 1000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    draws = [timestep_of(share_range, schedule, step, 100, generator, total) for _ in range(number)]
    return torch.tensor(draws, dtype=torch.float64)


def test_timesteps_are_uniform_with_both_ends():
    """Against the released range, 20 to 200 of 1000 with both ends, and the uniform distribution's mean and spread."""
    found = drawn((0.02, 0.2), "uniform", 50)
    assert (found.min(), found.max()) == (20, 200)
    assert float(found.mean()) == pytest.approx(110, abs=3)
    assert float(found.std()) == pytest.approx((181**2 / 12) ** 0.5, rel=0.05)


def test_timesteps_fall_to_the_middle_of_the_range_when_decreasing():
    """Against the ends at the first, the middle and the last step."""
    for step, high in ((0, 980), (99, 500)):
        found = drawn((0.02, 0.98), "decrease", step)
        assert found.min() == pytest.approx(20, abs=2)
        assert high - 5 < found.max() <= high
    assert 733 < drawn((0.02, 0.98), "decrease", 50).max() <= 740


@pytest.mark.parametrize("share_range", [(0.0, 1.0), (1.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
@pytest.mark.parametrize("schedule", ["uniform", "decrease"])
def test_timesteps_stay_within_the_schedule(share_range, schedule):
    """Property: an index into the prior's schedule for any range that the config allows, also of one step."""
    for total in (1, 7, 1000):
        found = drawn(share_range, schedule, 99, 50, total)
        assert 0 <= found.min() <= found.max() < total
    assert 0 <= timestep_of(share_range, schedule, 0, 1, torch.Generator(), 1000) < 1000
