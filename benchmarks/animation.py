"""How near an animation without its motion comes to the truth again, with a prior that knows the truth.

    python benchmarks/animation.py mesh --assets FOLDER     animate3d-mesh, many animations
    python benchmarks/animation.py scene --assets FOLDER    animate3d: Gaussians, reconstruction alone and refined
    python benchmarks/animation.py rigidity --assets FOLDER with and without the as-rigid-as-possible energy
    python benchmarks/animation.py field --assets FOLDER    threetofour: viewpoints, mask
    python benchmarks/animation.py speed --assets FOLDER    one small asset, alone on the machine

Each run gets frame 0 and an oracle, in a process of its own. Figures: mean and 95th percentile vertex error over frames
1 and later as shares of the rest box's diagonal, beside those of an object that never moves; PSNR and mask IoU of
renders of the exported mesh against the true one from views that no stage used; what is left of the edges' change after
the best rotations (ARAP distortion); seconds and peak memory. A motion is slow where the 95th percentile of a vertex's
way in a frame is under 2 % of the diagonal, fast where it is over 6 %. FOLDER holds models with animations.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ANIMATIONS = (
    "Fox.glb#Survey", "Fox.glb#Walk", "Fox.glb#Run",
    "robot.glb#Robot_Wave", "robot.glb#Robot_Yes", "robot.glb#Robot_Idle", "robot.glb#Robot_Dance",
    "robot.glb#Robot_Running", "Barbarian.glb#Idle", "Barbarian.glb#Cheer", "Barbarian.glb#2H_Melee_Attack_Chop",
    "SimpleSkin.gltf#0", "MorphStressTest.gltf#Pulse", "MorphStressTest.gltf#TheWave",
    "procedural:0", "procedural:1", "procedural:2", "procedural:3",
)  # fmt: skip
SCENES = ("Fox.glb#Survey", "robot.glb#Robot_Wave", "Barbarian.glb#Idle")
UNSEEN = ((45, 0), (135, 0), (225, 0), (315, 0), (60, 35), (180, 35), (300, 35))
"""Azimuth from the front and elevation of the views that score; reconstruction films 0, 90, 180 and 270 at 15."""
SCORED_PX = 128
SLOW, FAST = 0.02, 0.06


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("mesh", "scene", "rigidity", "field", "speed", "one"))
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("--only", default="", help="runs whose name contains this")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="config fields of every run")
    parser.add_argument("--job", default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    if arguments.what == "one":
        print(json.dumps(measure(json.loads(arguments.job))))
        return
    with tempfile.TemporaryDirectory() as folder:
        report = measure_all(arguments, Path(folder))
    print(json.dumps(report, indent=1))
    if not arguments.only and not arguments.set:
        arguments.out.mkdir(parents=True, exist_ok=True)
        name = f"animation_{arguments.what}_cpu{os.cpu_count()}_{datetime.date.today():%Y%m}.json"
        (arguments.out / name).write_text(json.dumps(report, indent=1) + "\n")


def measure_all(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    jobs = [job for job in plans(arguments.what) if arguments.only in job["name"]]
    procedural(folder / "procedural")
    threads = 1 if arguments.jobs > 1 else os.cpu_count()

    def run(number: int) -> dict[str, Any]:
        job = dict(jobs[number])
        name, _, animation = job["asset"].partition("#")
        if name.startswith("procedural:"):
            models = sorted((folder / "procedural").glob("*.glb"))
            path, animation = models[int(name.split(":")[1])], ""
            job["name"] = job["name"].replace(name, path.stem)
        else:
            path = arguments.assets / name
        told = job | {"path": str(path), "animation": animation, "out": str(folder / f"run{number}")}
        told["threads"] = threads
        told["fields"] = job["fields"] | dict(text.split("=", 1) for text in arguments.set)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        environment["PYTHONPATH"] = str(HERE.parent)
        command = [sys.executable, __file__, "one", "--job", json.dumps(told)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            row = {"error": done.stderr.strip().splitlines()[-1]}
        else:
            row = json.loads(done.stdout.splitlines()[-1])
        shutil.rmtree(folder / f"run{number}", ignore_errors=True)
        print(job["name"], row, file=sys.stderr, flush=True)
        return {"name": job["name"]} | row

    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows = list(pool.map(run, range(len(jobs))))
    return {
        "what": f"{arguments.what}: frame 0 and an oracle that ray-casts the truth; preset small",
        "rows": rows,
        "command": f"python benchmarks/animation.py {arguments.what} --assets FOLDER --jobs {arguments.jobs}",
        "threads a run": threads,
        "date": f"{datetime.date.today()}",
        "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "embreex")},
    }


def plans(what: str) -> list[dict[str, Any]]:
    """Runs: name, asset, method, fields of the config, error of the oracle on the background."""

    def job(name: str, asset: str, method: str, error: float = 0.0, **fields: str) -> dict[str, Any]:
        return {"name": name, "asset": asset, "method": method, "error": error, "fields": fields}

    if what == "mesh":
        return [job(asset, asset, "animate3d-mesh") for asset in ANIMATIONS]
    if what == "speed":
        return [job("Fox.glb#Survey", "Fox.glb#Survey", "animate3d-mesh")]
    if what == "rigidity":
        none = {"recon.arap_weight": "0.0"}
        return [
            job(f"{asset}, {name}", asset, "animate3d-mesh", **fields)
            for asset in (*SCENES, "Barbarian.glb#Cheer")
            for name, fields in (("with", {}), ("without", none))
        ]
    if what == "scene":
        variants = {"reconstruction alone": {"refine.steps": "0"}, "refined": {}}
        return [
            job(f"{asset}, {name}", asset, "animate3d", **fields)
            for asset in SCENES
            for name, fields in variants.items()
        ]
    asset = "Fox.glb#Survey"
    rows = [
        job(f"viewpoints {kind}", asset, "threetofour", **{"dynamic.viewpoints": kind})
        for kind in ("incremental", "uniform", "four-views", "sweep")
    ]
    for masked in ("True", "False"):
        name = f"wrong background, {'masked' if masked == 'True' else 'unmasked'}"
        rows.append(job(name, asset, "threetofour", 0.5, **{"dynamic.masked": masked}))
    return rows


def procedural(folder: Path) -> None:
    from pipelines.procedural import make

    make(folder, 4, 5)


def changed(config: Any, name: str, value: str) -> Any:
    head, _, rest = name.partition(".")
    old = getattr(config, head)
    if rest:
        return dataclasses.replace(config, **{head: changed(old, rest, value)})
    return dataclasses.replace(
        config, **{head: value if isinstance(old, str) else type(old)(json.loads(value.lower()))}
    )


class Quiet:
    def say(self, text: str) -> None: ...
    def filming(self, done: int, total: int) -> None: ...
    def stage(self, name: str, done: int, total: int, losses: dict[str, float]) -> None: ...
    def preview(self, stage: str, frames: Any) -> None: ...


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One run and its figures."""
    import torch

    from animate.config import preset
    from animate.export.truth import compare_motion
    from animate.priors.true_motion import open_truth
    from animate.run.job import animate
    from animate.subject.mesh import open_mesh
    from manifests.gltf import Poser, read

    torch.set_num_threads(job["threads"])
    config = dataclasses.replace(preset("small", job["method"]), frame_size=64)
    for name, value in job["fields"].items():
        config = changed(config, name, value)
    path, out = Path(job["path"]), Path(job["out"])
    prior = f"oracle:{path}" + (f"#{job['animation']}" if job["animation"] else "")
    summary = animate(
        path,
        prompt="a creature moves",
        prior=prior,
        out=out,
        config=config,
        watcher=Quiet(),
        err_on_background=job["error"],
    )
    record = json.loads((out / "animate.json").read_text())
    subject = open_mesh(path, pose=record["pose"], config=config.subject)
    truth_mesh = open_truth(path, job["animation"], config=config.subject, center=subject.center, scale=subject.scale)
    times_s = np.asarray(record["times_s"])
    # Frames past the end of a short animation repeat its last pose; they would dilute the figures.
    times_s = times_s[: max(3, int(np.sum(truth_mesh.time_s + times_s <= ends(truth_mesh) + 1e-6)))]
    truth = truth_mesh.posed(truth_mesh.animation, np.minimum(truth_mesh.time_s + times_s, ends(truth_mesh)))
    # The exported file is read back, so that what is measured is what a user gets.
    made = Poser(read(out / "animated.glb"))
    world = np.concatenate(made.positions(0, times_s), axis=1)
    pred = ((world - subject.center) * subject.scale).astype(np.float32)
    error = compare_motion(pred, truth, subject.diagonal)
    step = np.linalg.norm(np.diff(truth, axis=0), axis=-1) / subject.diagonal
    speed = float(np.quantile(step, 0.95))
    return {
        "vertices": len(subject.vertices),
        "points": len(subject.points),
        "frames": len(times_s),
        "motion": "slow" if speed < SLOW else "medium" if speed < FAST else "fast",
        "p95_step": round(speed, 4),
        **{name: round(error[name], 5) for name in ("mean", "p95", "static")},
        **pictures(subject, pred, truth),
        **(field_pictures(out, config, subject, truth) if job["method"] == "threetofour" else {}),
        "distortion": round(float(np.mean(record["distortion"][1:])), 4),
        "distortion_truth": round(true_distortion(subject, truth), 4),
        "seconds": {name: round(value, 1) for name, value in summary.seconds.items()},
        "total_s": round(sum(summary.seconds.values()), 1),
        "peak_mib": record["memory"]["peak_mib"],
    }


def field_pictures(out: Path, config: Any, subject: Any, truth: np.ndarray) -> dict[str, float]:
    """The field itself through the unseen views at its own size, against the truth; beside it the rest, held still."""
    import torch

    from animate.fields.nerf import StaticDynamicNerf
    from animate.methods.distillation import film_field
    from animate.run.checkpoint import load_checkpoint
    from animate.run.stage import CHECKPOINT
    from animate.subject.raycast import Raycaster
    from manifests.cameras import look_at_origin

    weights = load_checkpoint(out / CHECKPOINT).weights
    nerf = StaticDynamicNerf(config.nerf)
    nerf.load_state_dict({name[5:]: value for name, value in weights.items() if name.startswith("nerf.")})
    c2w = np.stack([look_at_origin(subject.front_azimuth_deg + a, e, config.dynamic.distance) for a, e in UNSEEN])
    footage = film_field(nerf, torch.from_numpy(c2w).float(), config, config.recon.fps, config.background)
    caster, K, size = Raycaster(subject), footage.K.double().numpy(), config.dynamic.size
    true = np.stack([caster.render(x, c2w, K, size, background=config.background).rgb for x in truth], 1)
    found = footage.images.permute(0, 1, 3, 4, 2).numpy()[:, : len(truth)]

    def psnr(x: np.ndarray) -> float:
        return float(np.mean(-10 * np.log10(np.square(x[:, 1:] - true[:, 1:]).mean((2, 3, 4)))))

    return {
        "field_psnr": round(psnr(found), 2),
        "field_psnr_rest": round(psnr(true[:, :1].repeat(true.shape[1], 1)), 2),
    }


def ends(mesh: Any) -> float:
    return mesh.asset.animations[mesh.animation].end_s


def true_distortion(subject: Any, truth: np.ndarray) -> float:
    import torch

    from animate.fields.arap import Neighbors, distortion

    first = np.unique(subject.weld, return_index=True)[1]
    neighbors = Neighbors.from_edges(torch.from_numpy(subject.edges), len(subject.points))
    points = torch.from_numpy(np.ascontiguousarray(truth[:, first])).float()
    return float(distortion(points[0], points[1:], neighbors).mean())


def pictures(subject: Any, pred: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Both meshes through the unseen views, frames 1 and later."""
    from animate.export.truth import image_figures
    from animate.subject.raycast import Raycaster
    from manifests.cameras import intrinsics, look_at_origin

    caster = Raycaster(subject)
    c2w = np.stack([look_at_origin(subject.front_azimuth_deg + a, e, 1.5) for a, e in UNSEEN])
    K = np.repeat(intrinsics(40.0, SCORED_PX, SCORED_PX)[None], len(c2w), 0)

    def shown(vertices: np.ndarray) -> np.ndarray:
        frames = []
        for moved in vertices[1:]:
            seen = caster.render(moved, c2w, K, SCORED_PX)
            rgb = seen.rgb / np.maximum(seen.alpha, 1e-6)[..., None]
            frames.append(np.round(np.clip(np.concatenate([rgb, seen.alpha[..., None]], -1), 0, 1) * 255))
        return np.stack(frames).astype(np.uint8)

    found, still = (
        image_figures(shown(pred), shown(truth)),
        image_figures(shown(truth[:1].repeat(len(truth), 0)), shown(truth)),
    )
    return {name: round(found[name], 3) for name in ("psnr", "psnr_object", "mask_iou")} | {
        "psnr_static": round(still["psnr"], 3)
    }


if __name__ == "__main__":
    main()
