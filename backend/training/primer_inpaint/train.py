"""Train primer-inpaint: pictures, autoencoder, latents, denoiser, and the folder that ships.

Every stage continues where an earlier run was stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from .pictures import Pictures

REPOSITORY = Path(__file__).resolve().parents[3]
TARGET = REPOSITORY / "backend" / "underpaint_backend" / "models" / "primer_inpaint"
SEED = 7


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train primer-inpaint", description=__doc__)
    parser.add_argument("--build", type=Path, default=REPOSITORY / "build" / "primer")
    parser.add_argument("--target", type=Path, default=TARGET, help="where the model is written to")
    parser.add_argument("--chunks", type=int, default=12, help="pictures, in thousands")
    parser.add_argument("--vae-minutes", type=float, default=26)
    parser.add_argument("--unet-minutes", type=float, default=62)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", choices=["pictures", "vae", "latents", "unet", "export"])
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the stages that are not finished yet; returns the exit status."""
    arguments = _arguments(argv)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    build: Path = arguments.build
    build.mkdir(parents=True, exist_ok=True)
    pictures = Pictures(build / "pictures", arguments.seed, arguments.chunks)
    if arguments.only not in ("unet", "export"):
        pictures.start()

    def wanted(stage: str) -> bool:
        return arguments.only in (None, stage)

    if wanted("vae"):
        from .vae import train_autoencoder

        train_autoencoder(pictures, build, arguments.vae_minutes, arguments.seed)
    if wanted("latents"):
        from .latents import encode_pictures

        encode_pictures(pictures, build)
    if wanted("unet"):
        from .unet import train_denoiser

        train_denoiser(build, arguments.unet_minutes, arguments.seed, arguments.threads)
    if wanted("export"):
        from .export import export

        print(f"{export(build, arguments.target) / 1e6:.1f} MB in {arguments.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
