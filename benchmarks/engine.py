"""How fast and how clean the data engine is, against the common recipe and against a bare loop, in one run.

``python benchmarks/engine.py [--assets FOLDER]`` measures what ``--only`` names (all by default), prints JSON and
writes it to ``benchmarks/results/``. FOLDER holds real models (Fox.glb, robot.glb, Barbarian.glb, ...); without it
procedural ones are made. Everything is a ratio against an alternative that ran on the same machine in the same run;
nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import queue
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from manifests.config import PRESETS, BuildConfig, to_dict
from manifests.dataset import Dataset
from pipelines.intake import scan
from pipelines.samples import planned_sample
from render.process import BlenderProcess

HERE = Path(__file__).parent
SURFACES = ("Fox.glb", "robot.glb", "Barbarian.glb", "MorphStressTest.gltf", "SimpleSkin.gltf")
"""With a surface, of the real models; those that the folder has are used."""
SKINNED = ("Fox.glb", "robot.glb", "Barbarian.glb")
PROCEDURAL = ("quadruped-000.glb", "octopus-000.glb", "biped-000.glb")
"""Take the place of both without a folder of real models."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, help="folder with real models; procedural ones by default")
    parser.add_argument("--only", nargs="*", default=list(MEASURES), choices=list(MEASURES))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    for name in arguments.only:
        with tempfile.TemporaryDirectory(prefix="mvv-bench-") as folder:
            began = time.time()
            assets = arguments.assets
            if assets is None:
                from pipelines.procedural import make

                assets = Path(folder) / "models"
                make(assets, 21, 0)
            result = MEASURES[name](assets, Path(folder))
        report = {"benchmark": name, "what": (MEASURES[name].__doc__ or "").strip(), **_machine(), **result}
        report["took_s"] = round(time.time() - began, 1)
        print(json.dumps(report, indent=1), flush=True)
        arguments.out.mkdir(parents=True, exist_ok=True)
        month = datetime.date.today().strftime("%Y%m")
        path = arguments.out / f"engine-{name}_cpu{os.cpu_count()}_{month}.json"
        path.write_text(json.dumps(report, indent=1) + "\n")


# -- 1. equal quality ---------------------------------------------------------------------------------------------


def quality(assets: Path, folder: Path) -> dict[str, Any]:
    """PSNR on the object, premultiplied stored values, of mv-video's default quality against 1024 samples.

    Object: pixels with alpha > 0 in the reference; values: sRGB-encoded colour times alpha, 0 to 1; same lights and
    bounces, another noise seed. Two frames of the first accepted clip of each asset, from a drawn side.
    """
    config = _small(PRESETS["mv-video"], views=1, frames=2, fps=1.0)
    rows = {}
    for name in _present(assets, SURFACES):
        ours = _render_clips(assets / name, config, folder)
        many = dataclasses.replace(config.render, samples=1024, denoise=False)
        reference = _render_clips(assets / name, dataclasses.replace(config, render=many), folder, other_noise=True)
        rows[name] = {"psnr_db": [round(_psnr(a, b), 2) for a, b in zip(ours, reference, strict=True)]}
        rows[name]["mean_db"] = round(statistics.mean(rows[name]["psnr_db"]), 2)
        rows[name]["min_db"] = min(rows[name]["psnr_db"])
        print(name, rows[name], file=sys.stderr, flush=True)
    return {
        "samples": config.render.samples,
        "denoise": config.render.denoise,
        "size": config.camera.size,
        "assets": rows,
    }


def _present(assets: Path, names: tuple[str, ...]) -> list[str]:
    found = [name for name in (*names, *PROCEDURAL) if (assets / name).exists()]
    if not found:
        raise SystemExit(f"{assets}: found none of {', '.join(names)}, expected at least one")
    return found


def _psnr(ours: np.ndarray, reference: np.ndarray) -> float:
    a, b = (x[..., :3] / 255.0 * (x[..., 3:] / 255.0) for x in (ours, reference))
    error = ((a - b)[reference[..., 3] > 0] ** 2).mean()
    return float(-10 * np.log10(error)) if error > 0 else 99.0


def recipe(assets: Path, folder: Path) -> dict[str, Any]:
    """Images a second at equal quality: the whole pipeline at mv-video's defaults against the common recipe.

    The recipe (128 samples, OpenImageDenoise, PNG, two threads) is timed on every eighth frame of the same clips and
    its time for all of them is start + images x seconds an image, which favours it: nothing slows down over time.
    """
    config = _small(PRESETS["mv-video"], views=4, frames=16, fps=8.0, max_animations=2)
    return _against_recipe(assets, folder, config, SURFACES, samples=128, denoise=True, every=8)


def equal_work(assets: Path, folder: Path) -> dict[str, Any]:
    """Same samples, bounces, lights and cameras, no denoiser, two threads in all: pipeline against the plain loop.

    16 samples, 256 px, 2 views x 8 frames, at least 8 clips of each skinned asset (copies under other hashes where an
    asset has fewer animations). The pipeline's time is that of the whole command: start-up, Ray, packing, tables.
    """
    base = _small(PRESETS["mv-video"], views=2, frames=8, fps=4.0, max_animations=8)
    config = dataclasses.replace(base, render=dataclasses.replace(base.render, samples=16, denoise=False))
    return _against_recipe(assets, folder, config, SKINNED, samples=16, denoise=False, every=1, clips=8)


def _against_recipe(
    assets: Path, folder: Path, config: BuildConfig, names: tuple[str, ...], *, samples: int, denoise: bool, every: int,
    clips: int = 1,
) -> dict[str, Any]:  # fmt: skip
    source, out = folder / "in", folder / "out"
    for name in _present(assets, names):
        copies = 1
        while True:  # as many copies as it takes to have the clips
            shutil.rmtree(source / name, ignore_errors=True)
            _copies(assets / name, source / name, copies)
            if sum(len(_planned(path, config)) for path in sorted((source / name).iterdir())) >= clips:
                break
            copies += 1
    began = time.perf_counter()
    _mvv("build", source, "--out", out, *_flags(config))
    ours_s = time.perf_counter() - began
    dataset = Dataset.open(out)
    uris = {row["sha256"]: Path(row["uri"]) for row in dataset.assets()}
    by_asset: dict[str, list[dict[str, Any]]] = {}
    for row in dataset.clips():
        by_asset.setdefault(row["asset_sha256"], []).append(dataset.sample(row["clip_id"]))
    rows: dict[str, dict[str, Any]] = {}
    for sha, selected in by_asset.items():
        answer = _recipe(folder, str(uris[sha]), selected, samples, denoise, every)
        whole = sum(len(s["times_s"]) * len(s["cameras"]["c2w"]) for s in selected)
        row = rows.setdefault(
            uris[sha].parent.name, {"clips": 0, "images": 0, "recipe_images_timed": 0, "recipe_s": 0.0, "render_s": 0.0}
        )
        row["clips"] += len(selected)
        row["images"] += whole
        row["recipe_images_timed"] += answer["images"]
        row["recipe_s"] += answer["start_s"] + whole * answer["render_s"] / answer["images"]
    for row in dataset.clips():
        rows[uris[row["asset_sha256"]].parent.name]["render_s"] += row["seconds"]
    for row in rows.values():
        # A worker's seconds, two workers at a time: what the asset's clips took, without start-up and packing.
        row["ratio_rendering_alone"] = round(row["recipe_s"] / (row["render_s"] / 2), 3)
        row |= {name: round(row[name], 2) for name in ("recipe_s", "render_s")}
    images, recipe_s = (sum(row[name] for row in rows.values()) for name in ("images", "recipe_s"))
    return {
        "config": to_dict(config), "recipe": {"samples": samples, "denoise": denoise, "threads": 2}, "assets": rows,
        "images": images, "pipeline_s": round(ours_s, 2), "recipe_s": round(recipe_s, 2),
        "pipeline_images_per_s": round(images / ours_s, 3), "recipe_images_per_s": round(images / recipe_s, 3),
        "ratio": round(recipe_s / ours_s, 3),
    }  # fmt: skip


def _recipe(
    folder: Path, path: str, samples: list[dict[str, Any]], count: int, denoise: bool, every: int
) -> dict[str, Any]:
    out = folder / "png"
    out.mkdir(exist_ok=True)
    frames = list(range(0, len(samples[0]["times_s"]), every))
    job = {"path": path, "samples": samples, "frames": frames, "samples_a_pixel": count, "denoise": denoise,
           "threads": 2, "out": str(out)}  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, str(HERE / "recipe.py"), str(folder / "job.json")]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    spent = time.perf_counter() - began
    shutil.rmtree(out)
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    answer["start_s"] = spent - answer["render_s"]  # with the interpreter's start and end
    return answer


def levers(assets: Path, folder: Path) -> dict[str, Any]:
    """What each lever gives, at 16 samples, 256 px, on one clip: seconds an image and the factor over the plain way.

    plain: one process, two threads, whole image, nothing kept. Then one lever after another: persistent data, cropping
    to the projected vertices, two processes of one thread.
    """
    rows = {}
    for name in _present(assets, SKINNED):
        steps = {}
        for step, (processes, threads, crop, keep) in {
            "plain": (1, 2, False, False), "persistent data": (1, 2, False, True), "crop": (1, 2, True, True),
            "two processes": (2, 1, True, True),
        }.items():  # fmt: skip
            job = json.dumps({"path": str(assets / name), "threads": threads, "crop": crop, "keep": keep})
            command = [sys.executable, str(HERE / "lever.py"), job]
            quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            runs = [subprocess.Popen(command, **quiet) for _ in range(processes)]
            answers = [json.loads(run.communicate()[0].splitlines()[-1]) for run in runs]
            steps[step] = round(statistics.mean(a["seconds"] / a["images"] for a in answers) / processes, 4)
        rows[name] = {"seconds_an_image": steps, "factor": {k: round(steps["plain"] / v, 3) for k, v in steps.items()}}
        print(name, rows[name], file=sys.stderr, flush=True)
    return {"assets": rows}


# -- 3. overhead, probing -----------------------------------------------------------------------------------------


def overhead(assets: Path, folder: Path) -> dict[str, Any]:
    """Ray, staging, packing and tables: `mvv build` with two workers against two bare render processes, 32 clips.

    The bare loop hands the same planned clips to two Blender processes, one after the other, without Ray; each writes
    to memory. Both render and encode the same images; both times are whole, start-up included.
    """
    base = _small(PRESETS["mv-video"], views=2, frames=8, fps=4.0, max_animations=32)
    config = dataclasses.replace(base, render=dataclasses.replace(base.render, samples=16, denoise=False))
    source = folder / "in"
    name = _present(assets, ("Barbarian.glb",))[0]
    copies = 1
    while True:
        shutil.rmtree(source, ignore_errors=True)
        _copies(assets / name, source, copies)
        planned = [(path, *entry) for path in sorted(source.iterdir()) for entry in _planned(path, config)]
        if len(planned) >= 32:
            break
        copies += 1
    began = time.perf_counter()
    todo: queue.Queue[tuple[Path, dict, dict, dict]] = queue.Queue()
    for entry in planned:
        todo.put(entry)

    def loop() -> None:
        with BlenderProcess() as process:
            while True:
                try:
                    path, sample, animation, clip = todo.get_nowait()
                except queue.Empty:
                    return
                part = Path(f"/dev/shm/mvv-bench-{os.getpid()}-{sample['clip_id']}.part")
                _render(process, path, sample, animation, clip, config, part)
                part.unlink()

    threads = [threading.Thread(target=loop) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    bare_s = time.perf_counter() - began
    began = time.perf_counter()
    _mvv("build", source, "--out", folder / "out", *_flags(config))
    ours_s = time.perf_counter() - began
    images = len(planned) * 16
    return {"clips": len(planned), "images": images, "bare_s": round(bare_s, 2), "pipeline_s": round(ours_s, 2),
            "overhead_percent": round((ours_s / bare_s - 1) * 100, 2)}  # fmt: skip


def probe(assets: Path, folder: Path) -> dict[str, Any]:
    """`mvv clips Barbarian.glb`: all 76 animations at mv-video's settings, the whole command; three runs."""
    name = _present(assets, ("Barbarian.glb",))[0]
    runs = []
    for _ in range(3):
        began = time.perf_counter()
        _mvv("clips", assets / name, "--out", folder / "clips.parquet")
        runs.append(round(time.perf_counter() - began, 2))
    return {"asset": name, "seconds": runs, "median_s": statistics.median(runs)}


# -- 4. memory ----------------------------------------------------------------------------------------------------


def memory(assets: Path, folder: Path) -> dict[str, Any]:
    """Resident memory of one Blender process over 60 assets, never recycled: MiB after each, at 64 px and 1 sample."""
    from pipelines.procedural import make
    from render.process import Isolation

    make(folder / "zoo", 60, 0)
    base = _small(PRESETS["demo"], views=2, frames=4, fps=8.0, max_animations=1)
    config = dataclasses.replace(
        base, camera=dataclasses.replace(base.camera, size=64), render=dataclasses.replace(base.render, samples=1)
    )
    isolation = Isolation(recycle_clips=10**6, recycle_mb=10**6)
    resident = []
    with BlenderProcess(isolation) as process:
        for path in sorted((folder / "zoo").glob("*.glb")):
            for sample, animation, clip in _planned(path, config)[:1]:
                _render(process, path, sample, animation, clip, config, folder / "x.part")
                resident.append(round(_rss_mb(process.pid), 1))
    third = len(resident) // 3
    return {"assets": len(resident), "limit_mb": Isolation().memory_mb, "recycle_mb": Isolation().recycle_mb,
            "peak_mb": max(resident), "first_third_mean_mb": round(statistics.mean(resident[:third]), 1),
            "last_third_mean_mb": round(statistics.mean(resident[-third:]), 1), "resident_mb": resident}  # fmt: skip


MEASURES = {
    "quality": quality, "recipe": recipe, "equal_work": equal_work, "levers": levers, "overhead": overhead,
    "probe": probe, "memory": memory,
}  # fmt: skip


# -- parts --------------------------------------------------------------------------------------------------------


def _small(config: BuildConfig, *, views: int, frames: int, fps: float, max_animations: int = 6) -> BuildConfig:
    return dataclasses.replace(
        config,
        camera=dataclasses.replace(config.camera, views=views),
        motion=dataclasses.replace(
            config.motion, frames=frames, fps=fps, max_animations=max_animations, min_frame0_radius=0.0, stretch=True
        ),
    )


def _flags(config: BuildConfig) -> list[str]:
    motion = config.motion
    return [
        "--preset", config.preset, "--views", str(config.camera.views), "--frames", str(motion.frames), "--fps",
        str(motion.fps), "--max-animations", str(motion.max_animations), "--samples", str(config.render.samples),
        "--min-frame0-radius", str(motion.min_frame0_radius), "--stretch", "--workers", "2",
        "--denoise" if config.render.denoise else "--no-denoise",
    ]  # fmt: skip


def _planned(path: Path, config: BuildConfig) -> list[tuple[dict, dict, dict]]:
    """(sample, animation, clip) of what would be rendered."""
    from pipelines.plan import draw_animations

    [row] = scan([path])
    with BlenderProcess() as process:
        found = process.ask("probe", path=str(path), config=to_dict(config))
    draw_animations(found, row["sha256"], config)
    return [
        (planned_sample(row, animation, clip, config), animation, clip)
        for animation in found["animations"] if animation["status"] == "accepted"
        for clip in animation["clips"] if clip["status"] == "accepted"
    ]  # fmt: skip


def _render_clips(path: Path, config: BuildConfig, folder: Path, *, other_noise: bool = False) -> list[np.ndarray]:
    """Images (H, W, 4) of the first clip, view by view."""
    from manifests.images import decode_frame
    from manifests.tar import read_at, read_part

    sample, animation, clip = _planned(path, config)[0]
    sample["render"]["seed"] += other_noise
    part = folder / "quality.part"
    with BlenderProcess() as process:
        _render(process, path, sample, animation, clip, config, part, threads=2)
    return [decode_frame(read_at(part, m.offset, m.size), m.name) for m in read_part(part)[1:]]


def _render(
    process: BlenderProcess,
    path: Path,
    sample: dict,
    animation: dict,
    clip: dict,
    config: BuildConfig,
    part: Path,
    threads: int = 1,
) -> None:
    process.ask(
        "render", path=str(path), sample=sample, source_animation=animation["index"], offsets=clip["offsets"],
        config=to_dict(config), out={"": str(part)}, threads=threads,
    )  # fmt: skip


def _copies(path: Path, folder: Path, count: int) -> None:
    """The same model under several hashes: spaces after its JSON."""
    folder.mkdir(parents=True)
    for index in range(count):
        data = path.read_bytes()
        if path.suffix == ".glb":
            (length,) = struct.unpack_from("<I", data, 12)
            text = data[20 : 20 + length] + b" " * (4 * index)
            rest = data[20 + length :]
            head = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A)
            data = head + text + rest
        else:
            data += b" " * index
        (folder / f"{path.stem}-{index}{path.suffix}").write_bytes(data)


def _mvv(*arguments: object) -> None:
    command = [sys.executable, "-m", "mvv.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")


def _rss_mb(pid: int | None) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "")
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": model, "cores": os.cpu_count(), "system": platform.platform(), "gpu": "none"},
        "versions": {name: version(name) for name in ("mvvideo", "bpy", "numpy", "ray", "pillow", "scipy")},
        "command": "python " + " ".join(["benchmarks/engine.py", *sys.argv[1:]]),
    }


if __name__ == "__main__":
    main()
