"""Does planning take more memory for more clips? Plans made-up assets in fresh processes and prints JSON.

``python benchmarks/plan_memory.py`` compares 10,000 with 100,000 clips; ``--rows N`` measures one size in this process.
The plan is written and read again wave by wave, as a build does; nothing is rendered.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifests.config import preset
from pipelines.plan import plan_clips, waves

CLIPS_PER_ASSET = 10
SIZES = (10_000, 100_000)


def made_up(assets: int) -> Iterator[dict[str, Any]]:
    """Probed assets with five animations of two windows each."""
    for k in range(assets):
        sha256 = hashlib.sha256(str(k).encode()).hexdigest()
        clips = [{"status": "accepted", "window": {"index": window}} for window in range(2)]
        animations = [{"index": index, "status": "accepted", "clips": clips} for index in range(CLIPS_PER_ASSET // 2)]
        yield {"asset": {"asset_id": f"asset-{sha256[:10]}", "sha256": sha256}, "found": {"animations": animations}}


def measure(rows: int) -> dict[str, Any]:
    """Plan `rows` clips: seconds, the process's peak and what the plan itself added to Python's heap at most."""
    with tempfile.TemporaryDirectory() as folder:
        plan, config = Path(folder) / "plan.parquet", preset("mv-video")
        began = time.perf_counter()
        plan_clips(made_up(rows // CLIPS_PER_ASSET), config, Path(folder) / "buckets", plan, first_shard={})
        count = sum(len(entries) for wave in waves(plan, set()) for _, entries in wave)
        seconds = time.perf_counter() - began
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        tracemalloc.start()  # after the timed run: it makes everything slower
        plan_clips(made_up(rows // CLIPS_PER_ASSET), config, Path(folder) / "buckets", plan, first_shard={})
        for _ in waves(plan, set()):
            pass
        heap_mb = tracemalloc.get_traced_memory()[1] / 2**20
    assert count == rows, f"{count} planned of {rows}"
    return {"rows": rows, "seconds": round(seconds, 2), "peak_mb": round(peak_mb, 1), "heap_peak_mb": round(heap_mb, 2)}


def main() -> None:
    """Print one size, or compare two and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    if arguments.rows:
        print(json.dumps(measure(arguments.rows)))
        return
    runs = []
    for rows in SIZES:
        command = [sys.executable, __file__, "--rows", str(rows)]
        runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    report = {
        "benchmark": "plan_memory",
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "command": "python benchmarks/plan_memory.py",
        "date": datetime.date.today().isoformat(),
        "runs": runs,
        "growth_mb": round(runs[-1]["peak_mb"] - runs[0]["peak_mb"], 1),
    }
    print(json.dumps(report, indent=1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    month = datetime.date.today().strftime("%Y%m")
    path = arguments.out / f"plan-memory_cpu{os.cpu_count()}_{month}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
