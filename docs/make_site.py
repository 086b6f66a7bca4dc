"""Build the documents as a searchable web site, in site/, and fail on any link that leads nowhere.

python docs/make_site.py               install what it needs into .venv-site, build, check
python docs/make_site.py --install     only install
python docs/make_site.py --out FOLDER  build into another folder

The pages are the same files that people read in the repository: README.md becomes the first page, and the
table of contents below says in which order the others follow.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
HOME = ROOT / ".venv-site"
LOCK = DOCS / "requirements.txt"

# captions of the table of contents, and their pages; * stands for all that are not named before
CONTENTS = {
    "The demos": ("demo-malicious/README", "demo-poisoning/README", "demo-supply-chain/README"),
    "Exercises": ("demo-*/EXERCISES",),
    "To read on": (
        "docs/story",
        "docs/glossary",
        "docs/facts",
        "docs/answers",
        "docs/malicious",
        "docs/poisoning/scan",
        "docs/poisoning/data",
        "docs/poisoning/more",
        "docs/supply-chain",
        "docs/*",
        "demo-*/kubernetes/*",
    ),
    "For instructors": ("WORKSHOP", "docs/instructor/*", "class/*"),
    "Measured": ("demo-*/*", "benchmarks/*"),
    "This repository": ("CONTRIBUTING", "SECURITY", "CHANGELOG", "*"),  # and what has no place above
}
# pages whose own titles are the same: what they are called in the table of contents
NAMED = {
    f"{demo}/EXERCISES": f"Exercises of demo {number} <{demo}/EXERCISES>"
    for number, demo in enumerate(("demo-malicious", "demo-poisoning", "demo-supply-chain"), 1)
}
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def tracked(*patterns: str) -> list[str]:
    """The files that git tracks, or would: also a page that was just written is built."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted({name for name in names if name and (ROOT / name).is_file()})


def python() -> Path:
    return HOME / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def install() -> None:
    """The locked packages, in a virtual environment of their own; nothing where they are there already.

    WORKSHOP_UV=uv takes uv instead of pip; where that fails, pip does it.
    """
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    mark = HOME / "installed.txt"
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        return
    venv.create(HOME, clear=True, with_pip=True)
    packages = ["--quiet", "--require-hashes", "--requirement", str(LOCK)]
    uv = shutil.which(os.environ.get("WORKSHOP_UV", ""))
    fast = [str(uv), "pip", "install", "--python", str(python()), *packages]
    if not uv or subprocess.run(fast, check=False).returncode != 0:
        pip = [str(python()), "-m", "pip", "install", "--disable-pip-version-check", *packages]
        subprocess.run(pip, check=True)
    mark.write_text(wanted, encoding="utf-8")


def contents(pages: list[str]) -> str:
    """The table of contents in Sphinx's words. Each page stands in it once."""
    left = [page for page in pages if page != "index"]
    parts = []
    for caption, patterns in CONTENTS.items():
        here = []
        for pattern in patterns:
            here += [page for page in left if Path(page).match(pattern) and page not in here]
            left = [page for page in left if page not in here]
        lines = [NAMED.get(page, page) for page in here]
        parts.append(
            "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *lines, "```", ""])
        )
    return "".join(parts)


def collect(folder: Path) -> None:
    """Copy the pages, and what they show or link to, into a folder; README.md becomes index.md."""
    names = [name for name in tracked("*.md") if not name.startswith((".github/", "tests/"))]
    pages = ["index" if name == "README.md" else name.removesuffix(".md") for name in names]
    for name, page in zip(names, pages):
        there = folder / f"{page}.md"
        there.parent.mkdir(parents=True, exist_ok=True)

        def moved(match: re.Match[str], name: str = name) -> str:
            before, target, after = match.groups()
            file = (ROOT / name).parent / target
            if file.resolve() == ROOT / "README.md":
                target = target.replace("README.md", "index.md")
            elif file.is_file() and file.suffix != ".md":
                copy = folder / file.resolve().relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            return f"{before}{target}{after}"

        text = LINK.sub(moved, (ROOT / name).read_text(encoding="utf-8"))
        text = text.replace("- [ ] ", "- ")  # boxes to tick, on paper and on GitHub; here they are only heard
        there.write_text(text + (contents(pages) if page == "index" else ""), encoding="utf-8")


# What axe-core finds in the theme's pages: a heading without its level, two landmarks without a name, tables
# that scroll and cannot be reached by the keyboard, and a search page without a heading.
MENDED = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer">': '<aside class="toc-drawer" aria-label="This page">',
    '<div class="table-wrapper ': '<div tabindex="0" role="group" aria-label="Table" class="table-wrapper ',
    '<noscript>\n<div class="admonition': '<h1>Search</h1>\n<noscript>\n<div class="admonition',
}


def mend(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for old, new in MENDED.items():
        text = text.replace(old, new)
    page.write_text(text, encoding="utf-8")


def build(source: Path, out: Path) -> int:
    """Sphinx's exit code: 0, or something else for any warning."""
    command = [str(python()), "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", str(DOCS)]
    code = subprocess.run(
        [*command, "-d", str(source.parent / "trees"), str(source), str(out)], check=False
    ).returncode
    for page in out.rglob("*.html"):
        mend(page)
    return code


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--install", action="store_true", help="only install what is needed")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "site", help="folder for the pages (default: site)"
    )
    args = parser.parse_args()
    install()
    if args.install:
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        collect(source)
        code = build(source, args.out.resolve())
    if code != 0:
        print("error: the site was not built cleanly; each line above names a page.", file=sys.stderr)
        return 1
    projector = [str(python()), str(DOCS / "make_projector.py"), "--out", str(args.out / "projector")]
    subprocess.run(projector, check=True, stdout=subprocess.DEVNULL)
    print(f"Wrote {args.out}: open {args.out}/index.html; the projector pages are in {args.out}/projector.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
