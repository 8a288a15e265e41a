"""What the cards of image metrics say of networks and preprocesses; `eval.extractors` does what is said here."""

from __future__ import annotations

from typing import Any

__all__ = ["CLIP", "CLIP_FLOATS", "CLIP_PILLOW", "DINO", "DINO_SOURCE", "LPIPS", "OPEN_CLIP"]

DINO: dict[str, Any] = {"backbone": "DINO ViT-B/16, class token (768), float32", "weights": ("dino-vitb16",)}
DINO_SOURCE = "network: facebookresearch/dino 7c446df, through timm"

CLIP: dict[str, dict[str, Any]] = {
    "b32": {
        "backbone": "OpenAI CLIP ViT-B/32, projected embedding (512), QuickGELU, float32",
        "weights": ("openai-clip-vit-b-32",),
    },
    "l14": {
        "backbone": "OpenAI CLIP ViT-L/14, projected embedding (768), QuickGELU, float32",
        "weights": ("openai-clip-vit-l-14",),
    },
}
"""Version -> fields of a card."""
CLIP_FLOATS = (
    "shorter side to 224 bicubic as float tensors without anti-aliasing, not clamped, centre crop 224, CLIP mean and"
    " deviation"
)
CLIP_PILLOW = (
    "CLIP's own: shorter side to 224 bicubic by Pillow (anti-aliased, to 8 bits), centre crop 224, CLIP mean and"
    " deviation"
)
OPEN_CLIP = "network: mlfoundations/open_clip 3.3.0"

LPIPS: dict[str, dict[str, Any]] = {
    "alex": {
        "backbone": "AlexNet behind its five ReLUs (torchvision), linear layers 0.1 of lpips 0.1.4"
        " (SHA-256 df73285e35b2), float32",
        "weights": ("alexnet-trunk",),
    },
    "vgg": {
        "backbone": "VGG-16 behind the last ReLU before each pooling (torchvision), linear layers 0.1 of lpips 0.1.4"
        " (SHA-256 a78928a0af1e), float32",
        "weights": ("vgg16-trunk",),
    },
}
"""Version -> fields of a card."""
