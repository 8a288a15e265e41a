"""The loss against its formulas written down a second time, and its independence of the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from train.run.objective import loss, min_snr_weights, noised, per_frame, quarters

SHAPE = (2, 4, 3, 4, 4)  # V, F, C, h, w


def scheduler(prediction: str = "epsilon", zero: bool = False, schedule: str = "linear") -> DDIMScheduler:
    return DDIMScheduler(1000, 0.00085, 0.012, schedule, prediction_type=prediction, rescale_betas_zero_snr=zero)


def latents(batch: int) -> torch.Tensor:
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(3))


def kept_signal(schedule: str) -> np.ndarray:
    """Product of 1 - beta, in float64, without diffusers."""
    if schedule == "linear":
        betas = np.linspace(0.00085, 0.012, 1000)
    else:
        betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    return np.cumprod(1 - betas)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noised_follows_the_formulas_and_leaves_frame_0_clean(schedule, prediction):
    """Oracle: x_t = sqrt(a) x + sqrt(1 - a) e and v = sqrt(a) e - sqrt(1 - a) x in numpy, with a of its own."""
    clean, rule = latents(3), scheduler(prediction, schedule=schedule)
    found = noised(clean, [5, 6, 2**63 - 1], rule)
    assert torch.equal(found.noisy[:, :, 0], clean[:, :, 0])
    for k in range(3):
        a = kept_signal(schedule)[found.timesteps[k]]
        x, e = clean[k].numpy().astype(np.float64), found.noise[k].numpy().astype(np.float64)
        noisy = math.sqrt(a) * x + math.sqrt(1 - a) * e
        target = {"epsilon": e, "v_prediction": math.sqrt(a) * e - math.sqrt(1 - a) * x, "sample": x}[prediction]
        np.testing.assert_allclose(found.noisy[k, :, 1:].numpy(), noisy[:, 1:], atol=2e-5)
        np.testing.assert_allclose(found.target[k].numpy(), target, atol=2e-5)


def test_noised_agrees_with_diffusers():
    """Oracle: the scheduler's own add_noise and get_velocity, on the last step of a zero-SNR schedule as well."""
    clean, rule = latents(3), scheduler("v_prediction", zero=True)
    found = noised(clean, [5, 6, 7], rule, timesteps=torch.tensor([0, 500, 999]))
    theirs = rule.add_noise(clean, found.noise, found.timesteps)
    torch.testing.assert_close(found.noisy[:, :, 1:], theirs[:, :, 1:])
    torch.testing.assert_close(found.target, rule.get_velocity(clean, found.noise, found.timesteps))
    assert torch.equal(found.noisy[2, :, 1:], found.noise[2, :, 1:])


def test_noise_and_loss_of_a_clip_do_not_depend_on_its_batch():
    """Oracle: each clip alone."""
    clean, rule, seeds = latents(4), scheduler(), [11, 12, 13, 14]
    whole = noised(clean, seeds, rule)
    losses = loss(torch.zeros_like(clean), whole, rule, 5.0)
    for k in (2, 0):
        alone = noised(clean[k : k + 1], seeds[k : k + 1], rule)
        assert torch.equal(alone.noisy[0], whole.noisy[k])
        assert alone.timesteps[0] == whole.timesteps[k]
        assert torch.equal(loss(torch.zeros_like(alone.noisy), alone, rule, 5.0).per_sample[0], losses.per_sample[k])


def test_noised_draws_timesteps_evenly_and_noise_of_unit_variance():
    """Oracle: the uniform and the standard normal distribution, by their moments within five standard errors."""
    rule, clean = scheduler(), torch.zeros(1, 1, 2, 1, 4, 4)
    drawn = [noised(clean, [seed], rule) for seed in range(1000)]
    steps = torch.stack([one.timesteps[0] for one in drawn]).double()
    assert abs(steps.mean() - 499.5) < 5 * 288.7 / math.sqrt(1000)
    assert steps.min() < 20
    assert steps.max() > 979
    noise = torch.stack([one.noise for one in drawn])
    assert abs(noise.mean()) < 5 / math.sqrt(noise.numel())
    assert abs(noise.var() - 1) < 5 * math.sqrt(2 / noise.numel())


@pytest.mark.parametrize("gamma", [0.0, 5.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_loss_is_the_weighted_mean_over_later_frames(prediction, gamma):
    """Oracle: loops over clips in float64 with the paper's weights; frame 0 is filled with nonsense."""
    clean, rule = latents(3), scheduler(prediction)
    truth = noised(clean, [1, 2, 3], rule)
    pred = torch.randn(clean.shape, generator=torch.Generator().manual_seed(9))
    pred[:, :, 0] = 1e6
    found = loss(pred.to(torch.bfloat16).float(), truth, rule, gamma)
    total = 0.0
    for k in range(3):
        error = (pred[k].to(torch.bfloat16).double() - truth.target[k].double())[:, 1:]
        mse = float((error**2).mean())
        a = kept_signal("linear")[truth.timesteps[k]]
        snr = a / (1 - a)
        weight = min(snr, gamma) / {"epsilon": snr, "v_prediction": snr + 1, "sample": 1}[prediction] if gamma else 1.0
        assert found.per_sample[k].item() == pytest.approx(mse, rel=1e-4)
        total += weight * mse / 3
    assert found.mean.item() == pytest.approx(total, rel=1e-4)
    assert found.mean.dtype == torch.float32


def test_min_snr_weights_mean_the_same_for_epsilon_and_v():
    """Oracle: an error d in the clean image is sqrt(SNR) d of epsilon and sqrt(SNR + 1) d of v, so weights times these
    are both min(SNR, gamma)."""
    steps = torch.tensor([0, 10, 200, 700, 999])
    a = torch.tensor(kept_signal("linear"), dtype=torch.float32)[steps]
    snr = a / (1 - a)
    epsilon = min_snr_weights(steps, scheduler("epsilon"), 5.0) * snr
    v = min_snr_weights(steps, scheduler("v_prediction"), 5.0) * (snr + 1)
    torch.testing.assert_close(epsilon, snr.clamp(max=5), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(v, epsilon, rtol=1e-4, atol=1e-6)


def test_min_snr_weights_are_finite_with_zero_terminal_snr():
    """Oracle: the limit, 0; epsilon would divide by 0, which the config refuses."""
    found = min_snr_weights(torch.tensor([0, 998, 999]), scheduler("v_prediction", zero=True), 5.0)
    assert torch.isfinite(found).all()
    assert found[2] == 0


def test_noise_of_a_later_frame_does_not_reach_the_loss_of_another_clip_or_frame_0():
    """Oracle: the gradient, which is exactly zero at frame 0."""
    clean, rule = latents(2), scheduler()
    truth = noised(clean, [1, 2], rule)
    pred = torch.zeros_like(clean).requires_grad_()
    loss(pred, truth, rule, 0.0).mean.backward()
    assert (pred.grad[:, :, 0] == 0).all()
    assert (pred.grad[:, :, 1:] != 0).all()


def test_per_frame_gives_frame_0_time_zero_when_asked():
    """Oracle: written out."""
    steps = torch.tensor([7, 900])
    assert per_frame(steps, 3, False) is steps
    assert per_frame(steps, 3, True).tolist() == [[0, 7, 7], [0, 900, 900]]
    assert steps.tolist() == [7, 900]


def test_quarters_sum_the_loss_by_timestep():
    """Oracle: written out."""
    clean, rule = torch.zeros(4, 1, 2, 1, 2, 2), scheduler()
    truth = noised(clean, [1, 2, 3, 4], rule, timesteps=torch.tensor([0, 249, 250, 999]))
    found = loss(torch.zeros_like(clean), truth, rule, 0.0)
    sums = quarters(truth, found, rule)
    assert sums[:, 1].tolist() == [2, 1, 0, 1]
    torch.testing.assert_close(sums[0, 0], found.per_sample[:2].double().sum())
