"""DynamiCrafter as a prior: animates one image by a prompt, view by view.

Only latents of square images; frame 0 is predicted like the others, the image stands beside all of them. Sources:
DynamiCrafter (arXiv 2310.12190); Doubiiu/DynamiCrafter, scripts/evaluation/inference.py; 3to4D (arXiv 2412.20422),
section 3.4, for the attention map.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from animate.guidance import guided, rescaled
from animate.priors.dynamicrafter.conditions import tokens_of, word_positions
from animate.priors.dynamicrafter.config import DynamiCrafterConfig
from animate.priors.dynamicrafter.load import Networks, load_networks
from animate.priors.dynamicrafter.schedule import schedule_of, timesteps_of
from animate.priors.matte import mattes
from animate.priors.prior import Guidance, Prediction, Prior
from animate.shot import Footage, Shot
from manifests.errors import InputError

__all__ = ["DynamiCrafter"]


@dataclass(frozen=True, eq=False)
class _Condition:
    """Of V views: the image's latents (V, 1, C, h, w), tokens of the text (1, 77, D) and of the image (V, N, D)."""

    first: Tensor
    text: Tensor
    image: Tensor


class DynamiCrafter(Prior):
    """A released DynamiCrafter, or one trained on from it.

    Args:
        name: as the user gave it.
        config: which model.
        networks: its weights.
        device: to compute on; half precision on CUDA, as released.

    Attributes:
        steps: of the sampler in `film`.
    """

    steps: int = 50

    first_frame_clean: ClassVar[bool] = False
    default_guidance = 7.5

    def __init__(
        self, name: str, config: DynamiCrafterConfig, networks: Networks, device: torch.device | str = "cpu"
    ) -> None:
        self.name, self.config = name, config
        self.device = torch.device(device)
        self.networks = networks.to(self.device)
        self.num_frames, self.size = config.resampler.frames, config.size
        self._schedule = schedule_of(config)
        self.alphas_cumprod = torch.from_numpy(self._schedule.alphas_cumprod).float()
        self._texts: dict[str, Tensor] = {}
        self._grey: Tensor | None = None
        self._last: tuple[Shot, _Condition] | None = None

    @classmethod
    def from_folder(
        cls, path: Path | str, device: torch.device | str = "cpu", *, config: DynamiCrafterConfig | None = None
    ) -> DynamiCrafter:
        """Loads a checkpoint.

        Args:
            path: the weights file, or a folder with one: `state_dict` of lvdm, in safetensors or torch.save's form.
            device: to compute on.
            config: of another model than the released ones; None recognises these.

        Raises:
            InputError: another file, or a damaged one.
        """
        config, networks = load_networks(path, config)
        return cls(str(path), config, networks, device)

    def check(self, *, prompt: str, views: int, frames: int, size: int) -> None:
        """As in `Prior`; sizes that do not halve evenly all the way down, and an empty prompt, too."""
        super().check(prompt=prompt, views=views, frames=frames, size=size)
        multiple = self._factor * self.networks.unet.size_multiple
        if size % multiple:
            raise InputError(
                f"--prior {self.name}: found size {size}, expected a multiple of {multiple}; set it in the config"
            )
        if not prompt.strip():
            raise InputError(f"--prompt: found an empty one, expected what {self.name} shall show; say what happens")

    def encode(self, images: Tensor) -> Tensor:
        """As in `Prior`: the mode of the VAE's distribution, where the released code draws from it."""
        vae = self.networks.vae
        latents = vae.encode(2 * images.to(self.device).flatten(0, 1) - 1).latent_dist.mode()
        return (vae.config.scaling_factor * latents).unflatten(0, images.shape[:2]).to(images.device)

    @torch.no_grad()
    def predict(self, noisy: Tensor, timestep: int, shot: Shot, guidance: Guidance) -> Prediction:
        """As in `Prior`; a guidance rescale is taken for each view on its own.

        The unconditional branch has no text and a grey image, and the same latents beside it.
        """
        found = self._predict(noisy.to(self.device).float(), timestep, self._condition(shot), guidance)
        return Prediction(*(value.to(noisy.device) for value in found))

    def _predict(self, noisy: Tensor, timestep: int, condition: _Condition, guidance: Guidance) -> Prediction:
        signal, scale, gain = self._schedule.at(timestep)
        x = gain * noisy
        cond = self._ask(x, timestep, condition)
        if guidance.scale == 1:
            return self._split(x, timestep, cond)
        without = _Condition(condition.first, self._text(""), self._unseen().expand_as(condition.image))
        raw = guided(cond, self._ask(x, timestep, without), guidance.scale)
        found = self._split(x, timestep, raw)
        if not guidance.rescale:
            return found
        target = self._split(x, timestep, cond).clean
        pairs = zip(found.clean.split(1), target.split(1), strict=True)
        clean = torch.cat([rescaled(one, other, guidance.rescale, first_frame_clean=False) for one, other in pairs])
        return Prediction(clean, (x - signal**0.5 * scale * clean) / (1 - signal) ** 0.5)

    @torch.no_grad()
    def film(self, shot: Shot, *, seed: int, told: Any = None) -> Footage:
        """As in `Prior`: DDIM with fresh noise (eta 1) and guidance 7.5 as released, each view on its own.

        The last step gives the clean latents, where the released sampler adds the noise of timestep 0. Masks are what
        differs from the background.
        """
        self.check(prompt=shot.prompt, views=shot.num_views, frames=shot.num_frames, size=shot.size)
        generator = torch.Generator().manual_seed(seed)
        height = shot.size // self._factor
        shape = (shot.num_views, self.num_frames, self.config.unet.latent_channels, height, height)
        guidance = Guidance(scale=self.default_guidance, rescale=self.config.guidance_rescale)
        timesteps = timesteps_of(self.config, self.steps)
        clean = x = torch.randn(shape, generator=generator).to(self.device)
        for number, (timestep, following) in enumerate(zip(timesteps, [*timesteps[1:], None], strict=True)):
            now = self._schedule.at(timestep)
            clean, noise = self.predict(x / now.gain, timestep, shot, guidance)
            if following is not None:
                then = self._schedule.at(following)
                fresh = (1 - then.signal) / (1 - now.signal) * (1 - now.signal / then.signal)
                kept = max(0.0, 1 - then.signal - fresh)
                drawn = torch.randn(shape, generator=generator).to(self.device)
                x = then.signal**0.5 * then.scale * clean + kept**0.5 * noise + fresh**0.5 * drawn
            if told is not None:
                told(number + 1, len(timesteps))
        return self._footage(shot, self._decode(clean))

    @torch.no_grad()
    def attention_map(self, word: str, noisy: Tensor, timestep: int, shot: Shot, kind: str = "text") -> Tensor:
        """As in `Prior`, from the network's first cross-attention, whose heads are averaged.

        Args:
            word: of the prompt; not read for images.
            noisy: (V, F, C, h, w) as in `predict`.
            timestep: as in `predict`.
            shot: what is filmed.
            kind: "text": the share that goes to the word's tokens. "image": how far a pixel has chosen one of the
                frame's image tokens, 0 for none, 1 for one alone; the shares themselves sum to 1 everywhere.

        Raises:
            InputError: the word is not in the prompt, or another kind.
        """
        if kind not in ("text", "image"):
            raise InputError(f"--mask-map: found {kind}, expected text or image; choose one of them")
        positions = word_positions(shot.prompt, word) if kind == "text" else []
        x = self._schedule.at(timestep).gain * noisy.to(self.device).float()
        with self._precision():
            text, image = self.networks.unet.first_weights(x, **self._given(x, timestep, self._condition(shot)))
        if kind == "text":
            found = text[..., positions].sum(-1).mean(2)
        else:
            even = 1 / image.shape[-1]
            found = (image.mean(2).amax(-1) - even).clamp(min=0) / (1 - even)
        return found[:, :, None].float().to(noisy.device)

    # -- conditions ----------------------------------------------------------------------------------------------------

    def _condition(self, shot: Shot) -> _Condition:
        if self._last is None or self._last[0] is not shot:
            first = shot.first.to(self.device)
            found = _Condition(self.encode(first[:, None]), self._text(shot.prompt), self._image(first))
            self._last = shot, found
        return self._last[1]

    def _text(self, prompt: str) -> Tensor:
        if prompt not in self._texts:
            with self._precision():
                self._texts[prompt] = self.networks.text(tokens_of([prompt]).to(self.device)).float()
        return self._texts[prompt]

    def _image(self, images: Tensor) -> Tensor:
        with self._precision():
            return self.networks.resampler(self.networks.image(images)).float()

    def _unseen(self) -> Tensor:
        """Tokens of no image: the released code gives the tower zeros, which are grey to it."""
        if self._grey is None:
            self._grey = self._image(torch.full((1, 3, 8, 8), 0.5, device=self.device))
        return self._grey

    # -- network -------------------------------------------------------------------------------------------------------

    def _given(self, x: Tensor, timestep: int, condition: _Condition) -> dict[str, Tensor]:
        views = len(x)
        numbers = {"timesteps": timestep, "stride": self.config.stride}
        return {
            "first": condition.first,
            "text": condition.text.expand(views, -1, -1),
            "image": condition.image,
            **{name: torch.full((views,), value, device=self.device) for name, value in numbers.items()},
        }

    def _ask(self, x: Tensor, timestep: int, condition: _Condition) -> Tensor:
        assert x.shape[1] == self.num_frames, f"{x.shape[1]} frames, the resampler makes {self.num_frames}"
        with self._precision():
            return self.networks.unet(x, **self._given(x, timestep, condition)).float()

    def _split(self, x: Tensor, timestep: int, raw: Tensor) -> Prediction:
        """Clean latents and noise from what the network saw and gave."""
        signal, scale, _ = self._schedule.at(timestep)
        if self.config.prediction == "v":
            clean, noise = signal**0.5 * x - (1 - signal) ** 0.5 * raw, signal**0.5 * raw + (1 - signal) ** 0.5 * x
        else:
            clean, noise = (x - (1 - signal) ** 0.5 * raw) / signal**0.5, raw
        return Prediction(clean / scale, noise)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda")

    # -- images --------------------------------------------------------------------------------------------------------

    @property
    def _factor(self) -> int:
        """Pixels of a latent."""
        return 2 ** (len(self.networks.vae.config.block_out_channels) - 1)

    def _decode(self, latents: Tensor) -> Tensor:
        vae = self.networks.vae
        # Frame by frame, as released for the wide models: the decoder wants more memory than all the rest.
        frames = [vae.decode(frame / vae.config.scaling_factor).sample for frame in latents.flatten(0, 1).split(1)]
        return (torch.cat(frames).unflatten(0, latents.shape[:2]) / 2 + 0.5).clamp(0, 1)

    def _footage(self, shot: Shot, images: Tensor) -> Footage:
        images = images.cpu()
        masks = mattes(images, shot.first, shot.background)
        return Footage(
            images=images, masks=masks, c2w=shot.c2w, K=shot.K, times_s=shot.times_s, background=shot.background
        )
