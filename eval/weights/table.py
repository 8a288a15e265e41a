"""Which weights files exist: name, licence, hash, addresses and how to get one by hand.

A hash stands here only where a source states it: the publisher's address or file name carries it (OpenAI, torchvision),
a git-lfs pointer of the publishing repository names it, or several unrelated projects that fetched the published file
agree on it; each entry says which. Where none is known, the first file that is added decides, and that is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from manifests.errors import InputError

__all__ = ["WEIGHTS", "Format", "Weight", "weight"]

Format = Literal["tensors", "torchscript"]
"""What the file is: named tensors (a state dict or safetensors), or an archive that brings its own graph."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One weights file as its authors published it."""

    name: str
    """How cards and the command line name it."""
    title: str
    """What it is, for people."""
    file: str
    """Name of the file where it is published; kept under the same name."""
    urls: tuple[str, ...] = ()
    """Addresses of the same bytes, tried in this order; none where only a person can fetch it."""
    licence: str
    """SPDX identifier, or a name where there is none."""
    noncommercial: bool = False
    """The licence forbids commercial use; fetching then needs the user's consent."""
    sha256: str = ""
    """Of the published file; "" where not known beforehand."""
    sha256_prefix: str = ""
    """The beginning of it, where only that is published."""
    bytes: int | None = None
    """Size of the published file where known; for progress and limits, never instead of the hash."""
    used_by: tuple[str, ...]
    """Ids of the metrics that need it."""
    obtain: str
    """Where a person finds it, beside the addresses."""
    source: str
    """Where file, licence and hash were read."""
    format: Format = "tensors"
    """What the file is."""

    @property
    def by_hand(self) -> str:
        """What to do without `mvv weights fetch`, for messages."""
        where = f"{self.urls[0]}, {self.obtain}" if self.urls else self.obtain
        return f"get {self.file} by hand ({where}) and run `mvv weights add {self.name} FILE`"

    @property
    def expected_hash(self) -> str:
        """For messages: the hash, its beginning with dots, or ""."""
        return self.sha256 or (f"{self.sha256_prefix}..." if self.sha256_prefix else "")

    def fits(self, sha256: str) -> bool:
        """Whether this can be the hash of the published file; always so where nothing is known of it."""
        return sha256 == self.sha256 if self.sha256 else sha256.startswith(self.sha256_prefix)


_OPENAI = "https://openaipublic.azureedge.net/clip/models/"
_TORCHVISION = "https://download.pytorch.org/models/"
_LPIPS = ("lpips_reference", "lpips_f")
_CLIP = ("clip_i", "clip_t", "clip_f")

WEIGHTS: dict[str, Weight] = {
    entry.name: entry
    for entry in (
        Weight(
            name="dino-vitb16", title="DINO ViT-B/16", file="dino_vitbase16_pretrain.pth",
            urls=("https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",),
            licence="Apache-2.0", bytes=343_242_485,
            sha256="bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e",
            used_by=("i2v_subject", "subject_consistency", "i2v_object"),
            obtain="linked in the README of facebookresearch/dino",
            source="facebookresearch/dino hubconf.py; hash: several unrelated projects that fetched this address agree",
        ),
        Weight(
            name="openai-clip-vit-b-32", title="OpenAI CLIP ViT-B/32", file="ViT-B-32.pt",
            urls=(f"{_OPENAI}40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",),
            licence="MIT", bytes=353_976_522,
            sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
            used_by=("background_consistency", *_CLIP), format="torchscript",
            obtain="linked in clip/clip.py of openai/CLIP",
            source="openai/CLIP clip/clip.py and open_clip pretrained.py; the hash is part of the address",
        ),
        Weight(
            name="openai-clip-vit-l-14", title="OpenAI CLIP ViT-L/14", file="ViT-L-14.pt",
            urls=(f"{_OPENAI}b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",),
            licence="MIT", bytes=932_768_134,
            sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
            used_by=("aesthetic_quality", *_CLIP), format="torchscript",
            obtain="linked in clip/clip.py of openai/CLIP",
            source="openai/CLIP clip/clip.py and open_clip pretrained.py; the hash is part of the address",
        ),
        Weight(
            name="laion-aesthetic-vit-l-14-linear", title="LAION aesthetic head V1 (linear, ViT-L/14)",
            file="sa_0_4_vit_l_14_linear.pth",
            urls=("https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/main/sa_0_4_vit_l_14_linear.pth",),
            licence="MIT", bytes=4_071,
            sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
            used_by=("aesthetic_quality",),
            obtain="in the repository LAION-AI/aesthetic-predictor",
            source="LAION-AI/aesthetic-predictor 6d122ad; hash: computed from the file of that commit",
        ),
        Weight(
            name="alexnet-trunk", title="AlexNet, ImageNet (trunk of LPIPS alex)", file="alexnet-owt-7be5be79.pth",
            urls=(f"{_TORCHVISION}alexnet-owt-7be5be79.pth",), licence="BSD-3-Clause", bytes=244_408_911,
            sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02", sha256_prefix="7be5be79",
            used_by=_LPIPS, obtain="linked in torchvision/models/alexnet.py",
            source="torchvision/models/alexnet.py; the name begins the hash, several projects state all of it",
        ),
        Weight(
            name="vgg16-trunk", title="VGG-16, ImageNet (trunk of LPIPS vgg)", file="vgg16-397923af.pth",
            urls=(f"{_TORCHVISION}vgg16-397923af.pth",), licence="BSD-3-Clause", bytes=553_433_881,
            sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", sha256_prefix="397923af",
            used_by=_LPIPS, obtain="linked in torchvision/models/vgg.py",
            source="torchvision/models/vgg.py; the name begins the hash, several projects state all of it",
        ),
        Weight(
            name="raft-large-c-t-v1", title="RAFT large, Chairs+Things (the authors' own, ported)",
            file="raft_large_C_T_V1-22a6c225.pth", urls=(f"{_TORCHVISION}raft_large_C_T_V1-22a6c225.pth",),
            licence="BSD-3-Clause", sha256_prefix="22a6c225",
            used_by=("dynamic_degree", "dynamic_margin", "dynamic_object"),
            obtain="linked in torchvision/models/optical_flow/raft.py",
            source="torchvision/models/optical_flow/raft.py, Raft_Large_Weights.C_T_V1; the file name begins the hash",
        ),
        Weight(
            name="raft-large-c-t-skht-v2", title="RAFT large, torchvision's default", bytes=21_106_607,
            file="raft_large_C_T_SKHT_V2-ff5fadd5.pth", urls=(f"{_TORCHVISION}raft_large_C_T_SKHT_V2-ff5fadd5.pth",),
            sha256="ff5fadd56d26b40647388883af1547351ea17868b765c05b27231e72dd16a322", sha256_prefix="ff5fadd5",
            licence="BSD-3-Clause", used_by=("dynamic_degree",),
            obtain="linked in torchvision/models/optical_flow/raft.py",
            source="torchvision/models/optical_flow/raft.py, Raft_Large_Weights.C_T_SKHT_V2; the name begins the hash, "
            "a git-lfs pointer of the copy hr16/RAFT-v2 states all of it",
        ),
        Weight(
            name="amt-s", title="AMT-S frame interpolation", file="amt-s.pth",
            urls=("https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth",), licence="CC-BY-NC-4.0",
            noncommercial=True, bytes=12_038_359,
            sha256="07e7e03405c213fe4405678db9b42d05671e48c56faf6a441b99bb0047d3cf77",
            used_by=("motion_smoothness", "motion_smoothness_object"),
            obtain="AMT-S trained on Vimeo90k, linked in the README of MCG-NKU/AMT",
            source="MCG-NKU/AMT README (licence; the copy that VBench fetches is labelled CC-BY-NC-SA-4.0); hash: "
            "git-lfs pointer of lalala125/AMT 4af6ffb",
        ),
        Weight(
            name="viclip-l14", title="ViCLIP-L/14, InternVid-10M-FLT", file="ViClip-InternVid-10M-FLT.pth",
            urls=(
                "https://huggingface.co/OpenGVLab/VBench_Used_Models/resolve/main/ViClip-InternVid-10M-FLT.pth",
                "https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/internvideo/viclip/ViClip-InternVid-10M-FLT.pth",
            ),
            licence="MIT", bytes=1_710_545_812,
            sha256="7a4d6ad6eac6632db3693f4b97f9f8f6445b65b1e139a6fc6686150522238c56", used_by=("temporal_style",),
            obtain="also in OpenGVLab/ViCLIP, after accepting its conditions; not ViCLIP-L_InternVid-FLT-10M.pth, "
            "which brings Python objects",
            source="model cards of OpenGVLab/ViCLIP (MIT) and OpenGVLab/VBench_Used_Models (Apache-2.0); hash: git-lfs "
            "details of the latter, 83290ee",
        ),
        Weight(
            name="i3d-kinetics-400", title="I3D RGB, Kinetics-400 (the FVD network)", file="i3d_pretrained_400.pt",
            urls=("https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt",),
            licence="Apache-2.0", used_by=("fvd", "consistent4d_logit_distance"),
            obtain="in the repository songweige/TATS; not i3d_torchscript.pt, which is another file",
            source="cd-fvd cdfvd/third_party/i3d/utils.py (address); Consistent4D evaluation/compute_fvd.py (file). "
            "Converted from google-deepmind/kinetics-i3d (Apache-2.0). No publisher states a hash: the first file that "
            "is added is held from then on",
        ),
    )
}  # fmt: skip
"""Name -> weight."""


def weight(name: str) -> Weight:
    """The entry of that name.

    Raises:
        InputError: no such name.
    """
    if name not in WEIGHTS:
        near = get_close_matches(name, WEIGHTS, 1)
        hint = f"did you mean {near[0]}?" if near else "`mvv weights list` shows them"
        raise InputError(f"weights: found name {name!r}, expected one of {', '.join(WEIGHTS)}; {hint}")
    return WEIGHTS[name]
