"""Check the masks of a whole dataset: ``python tests/render/check_masks.py DATASET ASSETS_ROOT``.

For each clip finds its asset below ASSETS_ROOT by the sample's ``source``, measures `masks.box_errors`, and prints the
99th percentile, the maximum and the worst images. Ends with 1 where the limits are broken or a mask touches the border.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from manifests.dataset import Dataset
from tests.render.masks import MAX_PX, P99_PX, box_errors, summary

WORST = 10


def main(dataset_path: str, assets_root: str) -> int:
    """Exit code."""
    dataset, root = Dataset.open(dataset_path), Path(assets_root)
    per_asset: dict[str, list[np.ndarray]] = {}
    worst: list[tuple[float, str]] = []
    touching: list[str] = []
    for row in dataset.clips(columns=["clip_id"]):
        sample, rgba = dataset.sample(row["clip_id"]), dataset.frames(row["clip_id"])
        path = root / sample["source"] if root.is_dir() else root
        errors = box_errors(path, sample, rgba)
        per_asset.setdefault(sample["source"], []).append(errors.reshape(-1))
        flat = np.nan_to_num(errors.max(-1), nan=-1.0, posinf=9e9)
        view, frame = np.unravel_index(flat.argmax(), flat.shape)
        worst.append((float(flat.max()), f"{row['clip_id']} view {view} frame {frame}: {errors[view, frame].tolist()}"))
        worst = sorted(worst, reverse=True)[:WORST]
        alpha = rgba[..., 3]
        edge = alpha[..., [0, -1], :].any() or alpha[..., :, [0, -1]].any()
        if edge and sample["normalization"]["mode"] in ("clip", "asset"):
            touching.append(row["clip_id"])
    for source, arrays in sorted(per_asset.items()):
        p99, most, images = summary(np.concatenate(arrays))
        print(f"{source}: p99 {p99:g} px, max {most:g} px over {images} images of {len(arrays)} clips")
    p99, most, images = summary(np.concatenate([a for arrays in per_asset.values() for a in arrays]))
    print(f"all: p99 {p99:g} px, max {most:g} px over {images} images")
    print("\n".join(f"worst: {text}" for _, text in worst))
    print(f"masks that touch the border: {', '.join(touching) or 'none'}")
    return int(p99 > P99_PX or most > MAX_PX or bool(touching))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
