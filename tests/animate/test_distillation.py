"""Distillation into the field: by an oracle of the sliding cube, with each of the paper's ablations."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animate.config import AnimateConfig, DynamicConfig
from animate.fields.nerf import StaticDynamicNerf
from animate.methods.distillation import Distillation, film_field, object_word
from animate.methods.static_field import StaticField, film_mesh, look_at
from animate.priors.oracle import Oracle, raycast_truth
from animate.priors.prior import Prior
from animate.priors.true_motion import open_truth
from animate.subject.raycast import Raycaster
from manifests.errors import InputError
from tests.animate.test_static_field import CONFIG as STATIC
from tests.animate.test_static_field import SIZE
from tests.animate.tiny_motion import START_S, rest_of, write_sliding_cube

FRAMES = 3
CONFIG = dataclasses.replace(
    STATIC, dynamic=DynamicConfig(steps=8, frames=FRAMES, size=SIZE, static_weight=1.0, guidance_scale=1.0)
)
PROMPT = "a red cube slides"


@pytest.fixture(autouse=True)
def _one_thread():
    """The cores are shared."""
    torch.set_num_threads(1)


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    path: str
    mesh: object
    raycaster: Raycaster
    weights: dict

    def oracle(self, kind: type[Oracle] = Oracle, **changes) -> Oracle:
        truth = open_truth(self.path, "slide", config=CONFIG.subject, center=self.mesh.center, scale=self.mesh.scale)
        made = kind(raycast_truth(truth, samples=1), **changes)
        made.fps = 4.0
        return made

    def stage(self, prior: Prior | None = None, prompt: str = PROMPT, **changes) -> Distillation:
        config = dataclasses.replace(CONFIG, dynamic=dataclasses.replace(CONFIG.dynamic, **changes))
        nerf = StaticDynamicNerf(config.nerf)
        nerf.load_state_dict(self.weights)
        return Distillation(nerf, self.mesh, self.raycaster, prior or self.oracle(), prompt, config)


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """The cube where it begins to slide, and a field that has learnt it for some steps."""
    torch.set_num_threads(1)
    path = write_sliding_cube(tmp_path_factory.mktemp("cube") / "cube.glb")
    mesh = rest_of(path, f"slide@{START_S}")
    raycaster = Raycaster(mesh)
    nerf = StaticDynamicNerf(CONFIG.nerf, generator=torch.Generator().manual_seed(0))
    static = StaticField(nerf, mesh, raycaster, CONFIG)
    optimizer = static.begin(None)
    for step in range(60):
        optimizer.zero_grad(set_to_none=True)
        static.step(step, torch.Generator().manual_seed(step))
        optimizer.step()
    return Setting(path, mesh, raycaster, nerf.state_dict())


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learn(stage: Distillation, steps: int) -> list[dict[str, float]]:
    optimizer, losses = stage.begin(None), []
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        losses.append(stage.step(step, seeded(step)))
        optimizer.step()
    return losses


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("a fox runs", "fox"),
        ("The old, big DRAGON is flying", "dragon"),
        ("two t-rexes fight", "t-rexes"),
        ("- 3 !!! bears dance", "bears"),
        ("Einhörner tanzen", "einhörner"),
        ("fox", "fox"),
    ],
)
def test_object_word_is_the_first_that_may_name_one(prompt, word):
    """Oracle: prompts read by a person."""
    assert object_word(prompt) == word


@pytest.mark.parametrize("prompt", ["", "a the of", "- 3 !!!"])
def test_prompt_without_an_object_is_refused(setting, prompt):
    """Oracle: the sentence names the option and the way out; without the mask no word is needed."""
    with pytest.raises(InputError, match=rf'--prompt: found "{prompt}", expected .*--dynamic\.no-masked'):
        object_word(prompt)
    assert setting.stage(prompt=prompt, masked=False).word == ""


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_word_that_the_prompt_lacks_is_refused(setting):
    """Oracle: the sentence names both."""
    with pytest.raises(InputError, match=rf'"{PROMPT}" without the word "ball"'):
        setting.stage(word="ball")
    assert setting.stage(word="Cube").word == "Cube"
    assert setting.stage(word="ball", masked=False).word == ""


class TextOnly(Oracle):
    """Says of itself that it reads no image."""

    reads_image = False


class OwnCameras(Oracle):
    """Says of itself that it has cameras of its own."""

    name, reads_image = "own", True


class NoMaps(Oracle):
    """Has no attention maps."""

    attention_map = Prior.attention_map


@pytest.mark.parametrize(("kind", "image_to_video"), [(TextOnly, True), (OwnCameras, False)])
def test_prior_and_first_ablation_must_agree(setting, kind, image_to_video):
    """Oracle: the sentence names prior and option; agreeing ones and those that take either pass."""
    with pytest.raises(InputError, match=r"--prior oracle: found a model of .*--dynamic\.image-to-video"):
        setting.stage(setting.oracle(kind), image_to_video=image_to_video)
    setting.stage(setting.oracle(kind), image_to_video=not image_to_video)
    setting.stage(image_to_video=False)


def test_prior_without_maps_is_refused_before_any_work(setting):
    """Oracle: the prior's own sentence, when the stage is made; without the mask it works."""
    with pytest.raises(InputError, match="found a prior without attention maps"):
        setting.stage(setting.oracle(NoMaps))
    assert learn(setting.stage(setting.oracle(NoMaps), masked=False), 1)


@pytest.mark.parametrize(("name", "value"), [("num_frames", 16), ("size", 256)])
def test_prior_of_another_shape_is_refused(setting, name, value):
    """Oracle: the sentence names what was found and what the prior was made for; a size is taken from the prior."""
    prior = setting.oracle()
    setattr(prior, name, value)
    if name == "size":
        prior.size = 32
        stage = setting.stage(prior)
        assert stage._shot(0, seeded(0)).size == 32
        assert learn(stage, 1)
        return
    with pytest.raises(InputError, match="--prior oracle: found frames 3, expected 16"):
        setting.stage(prior)


# -- learning ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["clean", "noise"])
def test_steps_lower_the_distance_to_the_truth(setting, form):
    """Oracle: the true clip through a camera of its own, nearer after some steps than before, frame 0 at rest."""
    weight = 1.0 if form == "clean" else 30.0
    stage = setting.stage(viewpoints="four-views", sds_form=form, sds_weight=weight, static_weight=100.0)
    c2w = look_at(270.0, stage.config, 0.0)

    def away() -> float:
        shot = dataclasses.replace(stage._shot(0, seeded(0)), times_s=torch.arange(FRAMES) / stage.prior.fps)
        truth = stage.prior.film(shot, seed=0).images
        shown = film_field(stage.nerf, shot.c2w, stage.config, stage.prior.fps, stage.background)
        assert torch.equal(shot.c2w, c2w)
        return float((shown.images - truth)[:, 1:].square().mean())

    before = away()
    losses = learn(stage, 24)
    assert away() < 0.8 * before
    assert set(losses[0]) == {"sds", "static", "loss"}
    assert losses[0]["loss"] == pytest.approx(losses[0]["sds"] + losses[0]["static"])


def test_gradient_is_that_of_the_written_down_loss(setting):
    """Oracle: clean form without mask: half the squared distance to the truth over images, plus time 0 to the mesh."""
    stage = setting.stage(masked=False, sds_form="clean", time_jitter=0.0, static_weight=3.0)
    stage.begin(None)
    stage.step(2, seeded(2))
    found = {name: value.grad.clone() for name, value in stage.nerf.named_parameters()}
    stage.nerf.zero_grad()
    generator = seeded(2)
    shot = stage._shot(2, generator)
    frames = torch.arange(FRAMES) / FRAMES
    cameras = shot.c2w.expand(FRAMES, -1, -1), shot.K.expand(FRAMES, -1, -1)
    shown = stage.nerf.render(*cameras, (SIZE, SIZE), frames, generator=generator, background=stage.background)
    truth = stage.prior.film(shot, seed=0).images[0]
    rest = film_mesh(stage.raycaster, stage.mesh, shot.c2w, shot.K, SIZE, stage.background)
    loss = 0.5 * (2 * (shown.images - truth)[1:]).square().sum() / (FRAMES - 1)
    loss = loss + 3 * (shown.images[:1] - rest.images).abs().mean()
    loss = loss + 3 * (shown.alphas[:1] - rest.alphas).abs().mean()
    loss.backward()
    for name, value in stage.nerf.named_parameters():
        scale = float(value.grad.abs().max())
        torch.testing.assert_close(found[name], value.grad, rtol=1e-3, atol=1e-4 * scale + 1e-9, msg=name)


def test_times_keep_their_order_and_begin_at_rest(setting):
    """Oracle: the first at 0, the others within half a quarter of a frame of i / F; without jitter exactly there."""
    stage, straight = setting.stage(time_jitter=0.5), setting.stage(time_jitter=0.0)
    even = torch.arange(FRAMES) / FRAMES
    for seed in range(20):
        shot = stage._shot(0, seeded(seed))
        times = stage._times(shot)
        assert float(times[0]) == 0
        assert float((times - even).abs().max()) <= 0.25 / FRAMES + 1e-6
        torch.testing.assert_close(times.double() * FRAMES / stage.prior.fps, shot.times_s, rtol=0, atol=1e-6)
    torch.testing.assert_close(straight._times(straight._shot(0, seeded(0))), even)


# -- ablations ---------------------------------------------------------------------------------------------------------


def test_viewpoints_follow_the_switch(setting):
    """Oracle: azimuths: the front alone at first, anywhere, four in turn, or on the way round."""

    def azimuths(kind: str) -> list[float]:
        stage = setting.stage(viewpoints=kind, steps=20)
        places = torch.stack([stage._shot(step, seeded(step)).c2w[0, :3, 3] for step in range(20)])
        return (torch.rad2deg(torch.atan2(places[:, 1], places[:, 0])).round(decimals=2) % 360).tolist()

    assert azimuths("incremental")[:2] == pytest.approx([270, 270])
    assert azimuths("four-views")[:4] == pytest.approx([270, 0, 90, 180], abs=1e-3)
    assert len({round(a) for a in azimuths("uniform")}) > 15
    sweep = azimuths("sweep")
    assert sweep[1] - sweep[0] == pytest.approx(18, abs=1e-3)


def field_gradient(stage: Distillation) -> dict[str, torch.Tensor]:
    stage.begin(None)
    stage.step(3, seeded(3))
    return {name: value.grad.clone() for name, value in stage.nerf.named_parameters()}


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Distance of gradients over the length of the first."""
    total = sum(float(value.square().sum()) for value in one.values())
    return (sum(float((other[name] - value).square().sum()) for name, value in one.items()) / total) ** 0.5


def test_mask_shields_the_gradient_from_errors_on_the_background(setting):
    """Oracle: the gradient of an oracle that does not err, from which the unmasked one strays many times as far."""
    strayed = {}
    for masked in (True, False):
        good = field_gradient(setting.stage(masked=masked, sds_form="clean"))
        bad = field_gradient(setting.stage(setting.oracle(err_on_background=0.5), masked=masked, sds_form="clean"))
        strayed[masked] = apart(good, bad)
    assert strayed[False] > 0.01
    assert strayed[True] < 0.1 * strayed[False]


@pytest.mark.parametrize(
    "changes",
    [
        {"masked": False},
        {"viewpoints": "uniform"},
        {"consistent_noise": True, "timestep_range": (0.5, 0.5)},
        {"sds_form": "clean"},
        {"mask_normalization": "none", "masked": True},
        {"static_weight": 2.0},
        {"time_jitter": 0.0},
    ],
)
def test_switches_change_the_gradient(setting, changes):
    """Oracle: a step without the switch; noise, which an oracle sees through, by itself."""
    stage = setting.stage(**changes)
    same = setting.stage(**{key: value for key, value in changes.items() if key == "timestep_range"})
    if "consistent_noise" in changes:
        stage.begin(None)
        shot = stage._shot(0, seeded(0))
        latents = torch.zeros(1, FRAMES, 3, SIZE, SIZE)
        noise = [stage._noise(latents, shot, seeded(seed)) for seed in (0, 1)]
        assert torch.equal(*noise), "painted noise is drawn once"
        assert float(noise[0].std()) == pytest.approx(1, abs=0.1)
        drawn = [same._noise(latents, shot, seeded(seed)) for seed in (0, 1)]
        assert not torch.equal(*drawn)
        return
    if changes.get("mask_normalization") == "none":
        # Coverage has a maximum of 1 wherever the object covers a pixel; over the mean it weighs otherwise.
        stage = setting.stage(mask_normalization="mean")
    assert apart(field_gradient(same), field_gradient(stage)) > 1e-3


def test_conditions_tell_the_prior_the_object_at_rest(setting):
    """Oracle: the ray-cast picture through the same camera, on the prior's background where it has one."""
    prior = setting.oracle()
    prior.background = (0.1, 0.2, 0.3)
    stage = setting.stage(prior)
    shot = stage._shot(0, seeded(0))
    seen = film_mesh(stage.raycaster, stage.mesh, shot.c2w, shot.K, SIZE, (0.1, 0.2, 0.3))
    assert torch.equal(shot.first, seen.images)
    assert shot.background == (0.1, 0.2, 0.3)
    assert (shot.prompt, shot.num_views, shot.num_frames) == (PROMPT, 1, FRAMES)


def test_film_of_the_field_has_its_times_and_cameras(setting):
    """Oracle: single renders of the field at i / F through the same camera."""
    stage = setting.stage()
    learn(stage, 2)
    c2w = torch.cat([look_at(azimuth, CONFIG) for azimuth in (0.0, 120.0)])
    footage = film_field(stage.nerf, c2w, CONFIG, 4.0, (1.0, 0.0, 0.0), size=20)
    assert footage.images.shape == (2, FRAMES, 3, 20, 20)
    torch.testing.assert_close(footage.times_s, torch.tensor([0.0, 0.25, 0.5], dtype=torch.float64))
    with torch.no_grad():
        one = stage.nerf.render(
            c2w[1:], footage.K[1:], (20, 20), torch.tensor([2 / FRAMES]), background=(1.0, 0.0, 0.0)
        )
    torch.testing.assert_close(footage.images[1, 2], one.images[0])
    torch.testing.assert_close(footage.masks[1, 2], one.alphas[0])
    preview = stage.preview()
    assert preview.shape == (FRAMES, SIZE, SIZE, 3)
    assert preview.dtype == torch.uint8


def test_stage_goes_on_where_the_static_one_ended(setting):
    """Oracle: the same weights under the same name, and an optimiser that has the grid of space and time as well."""
    stage = setting.stage()
    optimizer = stage.begin(None)
    assert isinstance(stage.config, AnimateConfig)
    assert set(stage.modules) == {"nerf"}
    assert {group["name"] for group in optimizer.param_groups} == {"static", "heads", "time"}
