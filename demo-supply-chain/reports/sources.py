"""What can be scanned: names of images, paths with the kind of source before them, and lists of both.

Helper module, not a command: scan.py uses it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from console import UserError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@:-]*")  # an image name; never starts like an option
ENGINES = ("registry", "docker", "podman")  # sources with an image name after the colon
PATHS = ("dir", "file", "sbom", "docker-archive", "oci-archive", "oci-dir", "singularity")  # ... with a path
OFFICIAL = re.compile(r"(docker|registry):[A-Za-z0-9_][A-Za-z0-9_.-]*")  # images of these names, with a tag
MODELS = "mlbom.cdx.json"  # a list of models, which make_mlbom.py writes


def read_images(path: Path) -> list[str]:
    """The image names in a file, one per line; lines that start with # are remarks."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: name the images on the command line instead.") from error
    images = [line for line in lines if line and not line.startswith("#")]
    if not images:
        raise UserError(f"{path} names no image: add one per line, or name one on the command line.")
    return images


def lists_in(results: Path) -> list[str]:
    """The package lists (SBOMs) that earlier scans have left, as sources for Grype."""
    found = [*results.glob("*.syft.json"), *results.glob("*.cdx.json")]
    lists = sorted(path for path in found if path.name != MODELS and not path.name.startswith("sbom_"))
    if not lists:
        raise UserError(
            f"{results} holds no package list: run ./scan.sh once with internet, or unpack a kit with some."
        )
    return [f"sbom:{os.path.relpath(path)}" for path in lists]


def check_names(images: list[str]) -> None:
    """Refuse what cannot be an image or a path before anything is scanned."""
    for name in images:
        kind, _, path = name.partition(":")
        if kind in PATHS:
            if not Path(path).exists():
                raise UserError(
                    f"{path or name!r} does not exist: write {kind}: and a path, like {kind}:./name."
                )
            if not path.isprintable():
                raise UserError(f"{name!r} holds characters that cannot be printed: rename it first.")
        elif not NAME.fullmatch(name):
            raise UserError(
                f"{name!r} is not a valid image name: write it like python:3.11 or host/team/image:tag, "
                "and a folder like dir:./folder."
            )


def source_of(image: str) -> str:
    """What Grype is asked to scan: the image in its registry, unless the name says another source.

    docker:24 and registry:2 are official images; one of the Docker engine has name and tag after docker:.
    """
    if image.startswith(tuple(f"{kind}:" for kind in (*ENGINES, *PATHS))) and not OFFICIAL.fullmatch(image):
        return image
    return f"registry:{image}"
