"""How fast the evaluation is, against the way the sources do it: same networks, same videos, one run.

``python benchmarks/evaluation.py [--device cuda]`` measures, prints JSON and writes it to ``benchmarks/results/``. The
sources (VBench; the LPIPS and CLIP scripts of the 4D papers) decode the video again for every metric and send one frame
or one pair at a time through the network. Weights are drawn at random: time does not depend on their values. Nothing
else should run meanwhile.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import itertools
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torchvision import models
from torchvision.models.optical_flow import raft_large

from eval.controls import make_controls
from eval.decode import read_video
from eval.extractor import Clip, Compute
from eval.extractors import find
from eval.extractors.amt_network import AmtSmall
from eval.extractors.preprocess import CLIP, DINO_256_CROP
from eval.extractors.sampling import centred_padding, middle_frames
from eval.extractors.viclip_network import VICLIP_L14, ViClipNetwork
from eval.items import Item, Video
from eval.metrics import METRICS
from eval.protocols import PROTOCOLS
from eval.runs import METHOD
from eval.score import Scorer

HERE = Path(__file__).parent
PROMPT = "a fox runs and looks back"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mvv-bench-") as folder:
        report = measure(arguments, Path(folder))
    print(json.dumps(report, indent=1))
    where = "cpu" if arguments.device == "cpu" else torch.cuda.get_device_name().split()[-1].lower()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"evaluation_{where}{os.cpu_count()}_{datetime.date.today():%Y%m}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")


METHOD_ALONE = (*PROTOCOLS["threetofour"].metrics, "aesthetic_quality@vbench", "i2v_subject@vbench-2024-07")
WHOLE_RUN = (*PROTOCOLS["threetofour"].metrics, "dynamic_margin@mvvideo-1")


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Two cases: the metrics of both papers on the method alone, and a run by 3to4D's protocol with its controls."""
    device = arguments.device
    weights = draw_all(folder / "weights")
    items = make_videos(folder / "videos", arguments)
    naive = Naive(weights, device)
    load = Compute(device=device, batch_size=arguments.batch_size)
    names = dict.fromkeys(["flow-dis", *(e for name in (*METHOD_ALONE, *WHOLE_RUN) for e in METRICS[name].extractors)])
    extractors = {name: find(name)(*(weights[w] for w in find(name).weights), compute=load) for name in names}
    cases = {
        "method alone": Case(METHOD_ALONE, extractors, naive, controls=False).measure(items, device),
        "whole run with controls": Case(WHOLE_RUN, extractors, naive, controls=True).measure(items, device),
    }
    return {
        "benchmark": "evaluation", "what": __doc__.split("\n\n")[0].strip(), "date": datetime.date.today().isoformat(),
        "machine": {"device": device if device == "cpu" else torch.cuda.get_device_name(), "cores": os.cpu_count(),
                    "threads": torch.get_num_threads(), "system": platform.platform()},
        "versions": {name: version(name) for name in ("mvvideo", "torch", "torchvision", "open_clip_torch", "av")},
        "command": "python " + " ".join(["benchmarks/evaluation.py", *sys.argv[1:]]),
        "frames": arguments.frames, "size": arguments.size, "batch_size": arguments.batch_size, "cases": cases,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }  # fmt: skip


class Case:
    """Some metrics, with or without controls, both ways on the same videos."""

    def __init__(self, names: tuple[str, ...], extractors: dict[str, Any], naive: Naive, *, controls: bool) -> None:
        self.names, self.naive, self.controls = names, naive, controls
        metrics = [METRICS[name] for name in names]
        read = dict.fromkeys(["flow-dis", *(name for metric in metrics for name in metric.extractors)])
        self.scorer = Scorer(
            rules=PROTOCOLS["threetofour"], background=(255, 255, 255), metrics=metrics, controls=controls,
            extractors={name: extractors[name] for name in read},
        )  # fmt: skip

    def measure(self, items: list[Item], device: str) -> dict[str, Any]:
        """Seconds of both ways after one video each to warm up, and how far the scores are apart."""
        one = dataclasses.replace(items[0], videos=items[0].videos[:1])
        self.scorer.score(one)
        self.naive.score(one.videos[0].read, one, one.videos[0].view, self.names)
        self.naive.seconds = {}
        began = time.perf_counter()
        scored = [self.scorer.score(item) for item in items]
        sync(device)
        ours_s = time.perf_counter() - began
        began = time.perf_counter()
        theirs = {
            (video.view, item.object_id, variant): self.naive.score(read, item, video.view, self.names)
            for item in items for video in item.videos for variant, read in self.variants(video)
        }  # fmt: skip
        sources_s = time.perf_counter() - began
        rows = [row for part in scored for row in part.rows["videos"]]
        assert all(row["value"] is not None for row in rows), [row["reason"] for row in rows]
        apart = dict.fromkeys(self.names, 0.0)
        for row in rows:
            other = theirs[row["view"], row["object_id"], row["variant"]][row["metric"]]
            apart[row["metric"]] = max(apart[row["metric"]], abs(row["value"] - other))
        count = len(theirs)
        spent = {name: sum(part.seconds.get(name, 0.0) for part in scored) for name in scored[0].seconds}
        return {
            "metrics": list(self.names), "videos_with_controls": count, "ours_s": round(ours_s, 2),
            "sources_s": round(sources_s, 2), "ratio": round(sources_s / ours_s, 3),
            "videos_per_s": {"ours": round(count / ours_s, 4), "sources": round(count / sources_s, 4)},
            "ours_seconds_by_pass": {name: round(value, 3) for name, value in spent.items()},
            "sources_videos_per_s_by_metric": {n: round(count / s, 4) for n, s in self.naive.seconds.items()},
            "largest_difference_of_a_score": {name: float(f"{value:.2g}") for name, value in apart.items()},
        }  # fmt: skip

    def variants(self, video: Video) -> list[tuple[str, Callable[[], np.ndarray]]]:
        """(name, reader) of the method and of its controls, which the sources would read as further videos."""
        found = [(METHOD, video.read)]
        if self.controls:
            frames = np.ascontiguousarray(video.read()[..., :3])
            clip = Clip(frames=frames, reference=frames[0], fps=video.fps, background=(255, 255, 255),
                        object_id=video.object_id, view=video.view, prompt=PROMPT)  # fmt: skip
            made = make_controls(clip, orbit=None, seed=0)
            found += [(name, lambda control=control: np.array(control.frames)) for name, control in made.items()]
        return found


def sync(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


# -- weights and videos -----------------------------------------------------------------------------------------------


def draw_all(folder: Path) -> dict[str, Path]:
    """Random weights of the real networks, in the layouts that the extractors read."""
    import timm

    folder.mkdir()
    torch.manual_seed(0)
    networks: dict[str, Callable[[], torch.nn.Module]] = {
        "dino-vitb16": lambda: timm.create_model("vit_base_patch16_224.dino", num_classes=0),
        "openai-clip-vit-b-32": lambda: open_clip.create_model("ViT-B-32-quickgelu"),
        "openai-clip-vit-l-14": lambda: open_clip.create_model("ViT-L-14-quickgelu"),
        "laion-aesthetic-vit-l-14-linear": lambda: torch.nn.Linear(768, 1),
        "alexnet-trunk": models.alexnet, "raft-large-c-t-v1": raft_large, "amt-s": AmtSmall,
        "viclip-l14": lambda: ViClipNetwork(VICLIP_L14),
    }  # fmt: skip
    paths = {}
    for name, make in networks.items():
        paths[name] = folder / f"{name}.pth"
        network = make()
        if name == "viclip-l14":  # our own graph is built without values
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.02)
        torch.save(network.state_dict(), paths[name])
    return paths


def make_videos(folder: Path, arguments: argparse.Namespace) -> list[Item]:
    """mp4 files of a textured disc that goes round, with the first frame as reference."""
    folder.mkdir()
    items = []
    views = [f"a{k * 90:03d}e+00" for k in range(arguments.views)]
    for number in range(arguments.objects):
        videos = []
        for place, view in enumerate(views):
            path = folder / f"{number}-{view}.mp4"
            write_mp4(path, moving_disc(arguments.frames, arguments.size, 10 * number + place))
            read = lambda path=path: read_video(path).rgba  # noqa: E731
            videos.append(
                Video(object_id=f"object-{number}", view=view, azimuth_deg=90.0 * place, elevation_deg=0.0, fps=8.0,
                      source=path.name, has_alpha=False, read=read)
            )  # fmt: skip
        references = {video.view: (lambda read=video.read: read()[0]) for video in videos}
        items.append(Item(object_id=f"object-{number}", videos=tuple(videos), prompt=PROMPT, references=references))
    return items


def moving_disc(frames: int, size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    texture = np.kron(rng.integers(30, 225, (size // 8, size // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    y, x = np.mgrid[:size, :size]
    out = np.full((frames, size, size, 3), 255, np.uint8)
    for k in range(frames):
        dx, dy = (round(size * 0.15 * f(2 * np.pi * k / frames)) for f in (np.cos, np.sin))
        inside = np.hypot(x - size / 2 - dx, y - size / 2 - dy) < size * 0.28
        out[k][inside] = np.roll(texture, (dy, dx), (0, 1))[inside]
    return out


def write_mp4(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=8, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


# -- the way the sources do it ----------------------------------------------------------------------------------------


class Naive:
    """Each metric decodes the video for itself and sends one frame or pair at a time through the same networks."""

    def __init__(self, weights: dict[str, Path], device: str) -> None:
        import warnings

        import lpips

        compute = Compute(device=device, batch_size=1)
        load = lambda name: find(name)(*(weights[w] for w in find(name).weights), compute=compute)  # noqa: E731
        self.device = device
        self.dino, self.clip, self.aesthetic, self.viclip = map(
            load, ("dino@256crop", "clip-b32@eval", "aesthetic", "viclip-l14")
        )
        self.amt = load("amt-s").network
        self.raft = load("raft-things").network
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.lpips = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        trunk = models.alexnet()
        trunk.load_state_dict(torch.load(weights["alexnet-trunk"], weights_only=True))
        for ours, theirs in zip(
            [m for m in self.lpips.net.modules() if isinstance(m, torch.nn.Conv2d)],
            [m for m in trunk.features if isinstance(m, torch.nn.Conv2d)], strict=True,
        ):  # fmt: skip
            ours.load_state_dict(theirs.state_dict())
        self.lpips = self.lpips.to(device)
        self.seconds: dict[str, float] = {}

    @torch.inference_mode()
    def score(self, read: Callable[[], np.ndarray], item: Item, view: str, names: tuple[str, ...]) -> dict[str, float]:
        """One video: metric name -> score; the seconds of each are added to ``seconds``."""
        out = {}
        for name in names:
            began = time.perf_counter()
            frames, self.reference = read()[..., :3], item.references[view]()[..., :3]
            out[name] = getattr(self, name.partition("@")[0])(frames, item)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
        return out

    def _unit(self, extractor: Any, image: np.ndarray, eight_bit: bool) -> torch.Tensor:
        images = (CLIP.eight_bit if eight_bit else CLIP.floats)(image[None], self.device)
        return F.normalize(extractor.network.encode_image(images), dim=-1)[0]

    def lpips_reference(self, frames: np.ndarray, item: Item) -> float:
        return float(np.mean([self._lpips(frame, self.reference) for frame in frames]))

    def lpips_f(self, frames: np.ndarray, item: Item) -> float:
        return float(np.mean([self._lpips(a, b) for a, b in itertools.pairwise(frames)]))

    def _lpips(self, a: np.ndarray, b: np.ndarray) -> float:
        pair = [torch.from_numpy(x.copy()).to(self.device).permute(2, 0, 1)[None] / 127.5 - 1 for x in (a, b)]
        return float(self.lpips(*pair))

    def clip_i(self, frames: np.ndarray, item: Item) -> float:
        reference = self._unit(self.clip, self.reference, True)
        return float(np.mean([float(self._unit(self.clip, frame, True) @ reference) for frame in frames]))

    def clip_f(self, frames: np.ndarray, item: Item) -> float:
        found = [self._unit(self.clip, frame, True) for frame in frames]
        return float(np.mean([float(a @ b) for a, b in itertools.pairwise(found)]))

    def clip_t(self, frames: np.ndarray, item: Item) -> float:
        tokens = open_clip.get_tokenizer("ViT-B-32-quickgelu")([item.prompt]).to(self.device)
        text = F.normalize(self.clip.network.encode_text(tokens), dim=-1)[0]
        return float(np.mean([float(self._unit(self.clip, frame, True) @ text) for frame in frames]))

    def temporal_style(self, frames: np.ndarray, item: Item) -> float:
        kept = frames[list(middle_frames(len(frames), 8))]
        [features] = self.viclip.extract([Clip(frames=np.ascontiguousarray(kept), prompt=item.prompt)])
        video, text = features["video"], features["text"]
        return float(video @ text / np.linalg.norm(video) / np.linalg.norm(text))

    def aesthetic_quality(self, frames: np.ndarray, item: Item) -> float:
        scores = [self.aesthetic.extract([Clip(frames=frame[None])])[0]["scores"] for frame in frames]
        return float(np.mean(scores)) / 10

    def i2v_subject(self, frames: np.ndarray, item: Item) -> float:
        def token(image: np.ndarray) -> torch.Tensor:
            return F.normalize(self.dino.network(DINO_256_CROP.floats(image[None], self.device)), dim=-1)[0]

        reference = F.normalize(self.dino.network(DINO_256_CROP.eight_bit(self.reference[None], self.device)), dim=-1)[
            0
        ]
        found = [token(frame) for frame in frames]
        to_reference = [max(0.0, float(f @ reference)) for f in found]
        steps = [max(0.0, float(a @ b)) for a, b in itertools.pairwise(found)]
        return 0.4 * max(to_reference) + 0.3 * float(np.mean(steps)) + 0.3 * min(steps)

    def motion_smoothness(self, frames: np.ndarray, item: Item) -> float:
        size = frames.shape[1:3]
        padding = centred_padding(*size, multiple=16)
        errors = []
        for k in range(1, len(frames) - 1, 2):
            pair = [
                torch.from_numpy(frames[j].copy()).to(self.device).permute(2, 0, 1)[None] / 255.0
                for j in (k - 1, k + 1)
            ]
            drawn = self.amt(*(F.pad(image, padding, mode="replicate") for image in pair))
            left, _, top, _ = padding
            drawn = drawn[..., top : top + size[0], left : left + size[1]]
            eight = (drawn[0] * 255).clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
            errors.append(np.abs(eight.astype(float) - frames[k]).mean())
        return 1 - float(np.mean(errors)) / 255

    def dynamic_degree(self, frames: np.ndarray, item: Item) -> float:
        return float(self._steps(frames) >= 1)

    def dynamic_margin(self, frames: np.ndarray, item: Item) -> float:
        return self._steps(frames)

    def _steps(self, frames: np.ndarray) -> float:
        """The K-th largest step, of the threshold."""
        size = frames.shape[1:3]
        padding, steps = centred_padding(*size, multiple=8), []
        for a, b in itertools.pairwise(frames):
            pair = [torch.from_numpy(x.copy()).to(self.device).permute(2, 0, 1)[None] / 127.5 - 1 for x in (a, b)]
            flow = self.raft(*(F.pad(image, padding, mode="replicate") for image in pair), num_flow_updates=20)[-1]
            magnitude = flow[0].square().sum(0).sqrt().flatten()
            steps.append(float(magnitude.topk(int(0.05 * len(magnitude))).values.mean()))
        return sorted(steps)[-round(4 * len(frames) / 16)] / (6.0 * min(size) / 256)


if __name__ == "__main__":
    main()
