"""Stage 2 of 3to4D: motion by distillation from an image-to-video model, one viewpoint a step.

The video starts at time 0, where the field is held to the object's render; its other frames lie near i / F. The model
is told the object's render from the same viewpoint. The paper's three ablations are switches of the config: without
image-to-video, without the viewpoint schedule, without the attention mask. Its term L_MV is not defined in the paper
and left out. Source: 3to4D (arXiv 2412.20422), v1 for the viewpoints, v2 sections 3.2 to 3.5 for the rest.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from animate.config import AnimateConfig
from animate.fields.nerf import StaticDynamicNerf
from animate.methods.static_field import ADAM_EPS, film_mesh, look_at
from animate.priors.prior import Guidance, Prior
from animate.run.stage import Stage
from animate.sds import mask_weights, sds_loss, timestep_of
from animate.shot import Footage, Shot, intrinsics_of
from animate.sphere_noise import SphereNoise, fitting_cell_deg
from animate.subject.mesh import RestMesh
from animate.subject.raycast import Raycaster
from animate.viewpoints import Viewpoints
from manifests.errors import InputError

__all__ = ["Distillation", "film_field", "object_word"]

SMALL_WORDS = frozenset(
    [
        "a", "an", "the", "this", "that", "some", "its", "his", "her", "their", "is", "are", "was", "were",
        "be", "being", "on", "in", "at", "of", "to", "with", "and", "or", "by", "from", "into", "while", "one",
        "two", "three", "small", "big", "little", "large", "old", "young", "happy", "sad",
    ]
)  # fmt: skip


class Distillation(Stage):
    """Distils a video prior into the field.

    Args:
        nerf: the field; learnt, from where stage 1 left it.
        mesh: the object.
        raycaster: of the mesh.
        prior: what is distilled.
        prompt: what happens.
        config: of the run.
    """

    name = "dynamic"

    def __init__(
        self,
        nerf: StaticDynamicNerf,
        mesh: RestMesh,
        raycaster: Raycaster,
        prior: Prior,
        prompt: str,
        config: AnimateConfig,
    ) -> None:
        self.nerf, self.mesh, self.raycaster, self.prior, self.prompt = nerf, mesh, raycaster, prior, prompt
        self.config, self.steps = config, config.dynamic.steps
        self.modules: dict[str, nn.Module] = {"nerf": nerf}
        self.device = next(nerf.parameters()).device
        self.background = prior.background or config.background
        self.film_size = prior.size or config.dynamic.size
        self.word = (config.dynamic.word or object_word(prompt)) if config.dynamic.masked else ""
        self.viewpoints = Viewpoints(
            config.dynamic.viewpoints, config.dynamic, self.steps, mesh.front_azimuth_deg, seed=config.seed
        )
        self._check()

    def begin(self, folder: Path) -> torch.optim.Optimizer:
        self.sphere: SphereNoise | None = None
        return torch.optim.Adam(self.nerf.parameter_groups("dynamic"), betas=(0.9, 0.99), eps=ADAM_EPS)

    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        config, prior = self.config.dynamic, self.prior
        shot = self._shot(step, generator)
        times = self._times(shot)
        K = intrinsics_of(torch.tensor([config.fov_y_deg]), config.size).to(self.device)
        frames = len(times)
        shown = self.nerf.render(
            shot.c2w.expand(frames, -1, -1),
            K.expand(frames, -1, -1),
            (config.size, config.size),
            times,
            generator=generator,
            background=self.background,
        )
        leaf = shown.images.detach().requires_grad_()
        video = self._enlarged(leaf)[None]
        latents = prior.encode(video)
        timestep = timestep_of(
            config.timestep_range, config.timestep_schedule, step, self.steps, generator, len(prior.alphas_cumprod)
        )
        noise = self._noise(latents, shot, generator)
        found = sds_loss(
            prior,
            latents,
            shot,
            timestep=timestep,
            noise=noise,
            guidance=Guidance(scale=config.guidance_scale),
            form=config.sds_form,
            weight=self._weight(latents, noise, timestep, shot),
        )
        sds = config.sds_weight * found.loss
        sds.backward()
        assert leaf.grad is not None, "the prior's latents do not depend on the frames"
        rest = film_mesh(self.raycaster, self.mesh, shot.c2w, K, config.size, self.background)
        static = (shown.images[:1] - rest.images).abs().mean() + (shown.alphas[:1] - rest.alphas).abs().mean()
        static = config.static_weight * static
        torch.autograd.backward([shown.images, static], [leaf.grad, torch.ones_like(static)])
        losses = {"sds": float(sds.detach()), "static": float(static.detach())}
        return losses | {"loss": sum(losses.values())}

    def _shot(self, step: int, generator: torch.Generator) -> Shot:
        config = self.config.dynamic
        camera = self.viewpoints.at(step)
        c2w = camera.c2w.to(self.device)
        K = intrinsics_of(camera.fov_y_deg, self.film_size).to(self.device)
        first = film_mesh(self.raycaster, self.mesh, c2w, K, self.film_size, self.background).images
        number = torch.arange(config.frames, dtype=torch.float64)
        stray = config.time_jitter * (torch.rand(config.frames, generator=generator).double() - 0.5)
        number[1:] += stray[1:]
        return Shot(
            prompt=self.prompt,
            c2w=c2w,
            K=K,
            size=self.film_size,
            first=first,
            times_s=number / self.prior.fps,
            background=self.background,
            front_azimuth_deg=self.mesh.front_azimuth_deg,
        )

    def _times(self, shot: Shot) -> Tensor:
        """Of the field, in [0, 1): a video of F frames ends at (F - 1) / F."""
        return (shot.times_s * self.prior.fps / self.config.dynamic.frames).clamp(0, 1).float().to(self.device)

    def _noise(self, latents: Tensor, shot: Shot, generator: torch.Generator) -> Tensor:
        if not self.config.dynamic.consistent_noise:
            return torch.randn(latents.shape, generator=generator).to(latents)
        frames, channels, height, width = latents.shape[1:]
        if self.sphere is None:
            cell = fitting_cell_deg(
                height, distance=self.config.dynamic.distance, fov_y_deg=self.config.dynamic.fov_y_deg
            )
            self.sphere = SphereNoise(frames, channels, self.config.seed, cell_deg=cell)
        K = shot.K.clone()
        K[:, :2] *= height / shot.size
        return self.sphere.at(shot.c2w, K, height, width).to(latents)

    def _weight(self, latents: Tensor, noise: Tensor, timestep: int, shot: Shot) -> Tensor | None:
        config = self.config.dynamic
        if not config.masked:
            return None
        noisy = self.prior.noised(latents.detach(), noise, timestep)
        found = self.prior.attention_map(self.word, noisy, timestep, shot, config.mask_map)
        return mask_weights(found, config.mask_normalization)

    def _enlarged(self, images: Tensor) -> Tensor:
        if images.shape[-1] == self.film_size:
            return images
        return interpolate(images, size=(self.film_size,) * 2, mode="bilinear", antialias=True)

    def _check(self) -> None:
        config, prior = self.config.dynamic, self.prior
        if prior.reads_image is not None and prior.reads_image != config.image_to_video:
            raise InputError(
                f"--prior {prior.name}: found a model of {'images' if prior.reads_image else 'text alone'} with"
                f" image_to_video {config.image_to_video}, expected them to agree; change"
                " --dynamic.image-to-video, or take another prior"
            )
        if config.masked and self.word.lower() not in _words(self.prompt):
            raise InputError(
                f'--prompt: found "{self.prompt}" without the word "{self.word}", expected the object\'s word in it for'
                " the attention mask; name it in the prompt or with --dynamic.word, or give --dynamic.no-masked"
            )
        prior.check(prompt=self.prompt, views=1, frames=config.frames, size=self.film_size)
        if config.masked and self.steps:
            self._rehearse()

    def _rehearse(self) -> None:
        """Asks for one attention map: a prior that has none, or not for this word, says so before any work is done."""
        shot = self._shot(0, torch.Generator().manual_seed(0))
        with torch.no_grad():
            latents = self.prior.encode(shot.first[:, None].expand(-1, shot.num_frames, -1, -1, -1))
            self._weight(latents, torch.zeros_like(latents), len(self.prior.alphas_cumprod) // 2, shot)

    def preview(self) -> Tensor:
        c2w = look_at(self.mesh.front_azimuth_deg + 30, self.config).to(self.device)
        footage = film_field(self.nerf, c2w, self.config, self.prior.fps, self.background)
        return (footage.images[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


@torch.no_grad()
def film_field(
    nerf: StaticDynamicNerf,
    c2w: Tensor,
    config: AnimateConfig,
    fps: float,
    background: tuple[float, float, float],
    size: int | None = None,
) -> Footage:
    """The field's video through some cameras.

    Args:
        nerf: the field.
        c2w: (V, 4, 4).
        config: of the run.
        fps: of the prior.
        background: sRGB-encoded 0 to 1.
        size: height and width, pixels; default: that of the stage.
    """
    dynamic = config.dynamic
    size = size or dynamic.size
    K = intrinsics_of(torch.full((len(c2w),), dynamic.fov_y_deg), size).to(c2w.device)
    number = torch.arange(dynamic.frames, dtype=torch.float64)
    times = (number / dynamic.frames).float().to(c2w.device)
    images, masks = [], []
    for camera, lens in zip(c2w, K, strict=True):
        frames = len(times)
        shown = nerf.render(
            camera.expand(frames, -1, -1), lens.expand(frames, -1, -1), (size, size), times, background=background
        )
        images.append(shown.images)
        masks.append(shown.alphas)
    return Footage(
        images=torch.stack(images),
        masks=torch.stack(masks),
        c2w=c2w,
        K=K,
        times_s=number / fps,
        background=background,
    )


def object_word(prompt: str) -> str:
    """The first word of a prompt that may name an object: no article, number word or the like.

    Raises:
        InputError: there is none.
    """
    for word in _words(prompt):
        if word not in SMALL_WORDS and any(letter.isalpha() for letter in word):
            return word
    raise InputError(
        f'--prompt: found "{prompt}", expected one that names the object; say what moves, or give --dynamic.no-masked'
    )


def _words(prompt: str) -> list[str]:
    return ["".join(letter for letter in word if letter.isalnum() or letter in "-'") for word in prompt.lower().split()]
