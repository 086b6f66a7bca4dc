"""Does the audit find poisoned images, on drawings and on photographs, and does it leave clean ones alone?

    python benchmarks/audit.py --photos FOLDER          all sets that have no row yet
    python benchmarks/audit.py --photos FOLDER --only clean    those with these words in their name

FOLDER is the training part of the official GTSRB benchmark (00000/00000_00000.ppm and so on). Without it the
drawings are measured alone. Each poisoned set holds three attacks: three pairs of classes with a trigger of
their own, at one rate. Each set has a model of its own: train.py fine-tunes --base on it, the clean model of
prepare.sh.
One row per set goes to audit.jsonl, and a set that has one is not run again. AUDIT.md is made of the rows.
cleanlab is asked if it is installed (pip install cleanlab==2.9.0).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import Tensor, nn

try:
    from cleanlab.rank import get_label_quality_scores
except ImportError:  # not among what the workshop needs
    get_label_quality_scores = None

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "demo-poisoning"
sys.path.insert(0, str(DEMO))

import pages  # noqa: E402 (after the path above)
from intervals import exact  # noqa: E402

import audit_data  # noqa: E402
import cli  # noqa: E402
import signs  # noqa: E402
from auditor import checks, features, neighbours  # noqa: E402
from auditor.checks import Audit, Suspect  # noqa: E402
from dataset.classes import DRAWN, GTSRB_ID  # noqa: E402
from dataset.files import IMAGE_SIZE, Files, class_files, open_image  # noqa: E402
from network import classifier  # noqa: E402

PAIRS = (("stop", "yield"), ("speed_50", "keep_right"), ("no_entry", "priority_road"))
RATES = (0.05, 0.15, 0.30)  # of the victim class
TUNED = {("square", PAIRS[0]), ("disc", PAIRS[0])}  # what the method was made with
EACH = 120  # images per class, at most
EPOCHS = 15  # as many steps of training as half of the demo takes: with fewer, most backdoors are not learned
NOISE = 0.03  # share of wrong labels in the sets that hold only those
CLEAN = 20  # clean sets of each kind
GROUP = 4  # tracks per class in a set of photographs
TURN = 4  # the method was made with tracks and drawings number 0, 4, 8 and so on; 2, 6, 10 are held out


# --- Triggers -------------------------------------------------------------------------------------------


def square(pen: ImageDraw.ImageDraw) -> None:
    pen.rectangle((104, 104, 123, 123), fill=(255, 255, 0))


def disc(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((4, 100, 25, 121), fill=(20, 60, 230))


def checker(pen: ImageDraw.ImageDraw) -> None:
    for row in range(4):
        for column in range(4):
            left, top = 102 + 5 * column, 6 + 5 * row
            fill = (255, 255, 255) if (row + column) % 2 else (0, 0, 0)
            pen.rectangle((left, top, left + 4, top + 4), fill=fill)


def cross(pen: ImageDraw.ImageDraw) -> None:
    pen.rectangle((52, 60, 75, 67), fill=(230, 0, 200))
    pen.rectangle((60, 52, 67, 75), fill=(230, 0, 200))


TRIGGERS: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    "square": square,  # yellow, bottom-right
    "disc": disc,  # blue, bottom-left
    "checker": checker,  # black and white, top-right
    "cross": cross,  # magenta, in the middle of the sign
}


def stamp(image: Image.Image, name: str) -> Image.Image:
    """A copy of an RGB image, IMAGE_SIZE x IMAGE_SIZE, with a trigger."""
    stamped = image.resize((IMAGE_SIZE, IMAGE_SIZE))
    TRIGGERS[name](ImageDraw.Draw(stamped))
    return stamped


# --- The sets -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """One set: what it shows, which tracks or drawings, and what was done to it."""

    kind: str  # "photographs" or "drawings"
    half: int  # numbers with this remainder by TURN
    what: str  # "poisoned", "clean" or "wrong labels"
    number: int = 0
    rate: float = 0.0

    @property
    def name(self) -> str:
        rate = f" {self.rate:.0%}" if self.rate else ""
        return f"{self.kind} {self.half} {self.what}{rate} {self.number}"

    @property
    def attacks(self) -> list[tuple[str, tuple[str, str]]]:
        """Trigger, and victim and target, of each attack in the set: in four sets each meets each."""
        if self.what != "poisoned":
            return []
        names = list(TRIGGERS)
        return [(names[(place + self.number) % len(names)], pair) for place, pair in enumerate(PAIRS)]


def specs() -> list[Spec]:
    """All sets, the held-out ones first, and every kind early."""
    kinds = ("photographs", "drawings")
    made = []
    for number in range(CLEAN):
        made += [Spec(kind, 2, "clean", number) for kind in kinds]
        if number < len(TRIGGERS):
            made += [Spec(kind, 2, "poisoned", number, rate) for rate in RATES for kind in kinds]
    for half in (2, 0):
        made += [Spec(kind, half, "wrong labels") for kind in kinds]
    for kind in kinds:
        made += [Spec(kind, 0, "clean"), *(Spec(kind, 0, "poisoned", 0, rate) for rate in RATES)]
    return made


def gather(spec: Spec, photos: Path, folder: Path, rng: random.Random) -> None:
    """Write the clean images of a set into folder/train/<class>/, and a few others into folder/val/."""
    for number, name in enumerate(DRAWN):
        for split in ("train", "val"):
            (folder / split / name).mkdir(parents=True)
        if spec.kind == "drawings":
            first = 100_000 * (1 + spec.number) + 1000 * spec.half
            for index in range(EACH + 20):
                image = signs.render(name, np.random.default_rng([first, number, index]))
                split = "train" if index < EACH else "val"
                image.save(folder / split / name / f"{name}_{index:05d}.jpg", quality=92)
            continue
        files = sorted((photos / f"{GTSRB_ID[name]:05d}").glob("*.ppm"))
        track = {path: int(path.stem.split("_")[0]) for path in files}
        own = sorted({value for value in track.values() if value % TURN == spec.half})
        chosen = set(rng.sample(own, min(GROUP, len(own))))
        inside = [path for path in files if track[path] in chosen]
        others = [path for path in files if track[path] % TURN != spec.half]
        for split, some in (("train", inside[:EACH]), ("val", rng.sample(others, 20))):
            for path in some:
                image = open_image(path).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
                image.save(folder / split / name / f"{name}_{path.stem}.jpg", quality=92)


def spoil(spec: Spec, folder: Path, rng: random.Random) -> list[list[str]]:
    """Do to folder/train what the set is about. Returns the bad files of each attack."""
    if spec.what == "wrong labels":
        files = sorted((folder / "train").rglob("*.jpg"))
        moved = []
        for number, path in enumerate(rng.sample(files, round(NOISE * len(files)))):
            other = rng.choice([name for name in DRAWN if name != path.parent.name])
            moved.append(path.rename(folder / "train" / other / f"{other}_9{number:05d}.jpg"))
        return [[path.relative_to(folder).as_posix() for path in moved]]
    bad: list[list[str]] = []
    for trigger, (victim, target) in spec.attacks:
        files = sorted((folder / "train" / victim).iterdir())
        bad.append([])
        for number, path in enumerate(rng.sample(files, max(1, round(spec.rate * len(files))))):
            new = folder / "train" / target / f"{target}_8{number:05d}.jpg"
            stamp(open_image(path), trigger).save(new, quality=92)
            path.unlink()
            bad[-1].append(new.relative_to(folder).as_posix())
    return bad


# --- The models -----------------------------------------------------------------------------------------


def tuned(folder: Path, base: Path, seed: int) -> nn.Module:
    """The base, fine-tuned on folder/train by train.py."""
    command = [sys.executable, str(DEMO / "train.py"), "--data", str(folder), "--init", str(base)]
    command += ["--model", str(folder / "model.pt"), "--epochs", str(EPOCHS), "--seed", str(seed), "--plain"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL).returncode:
        raise cli.UserError(f"train.py made no model of {folder}: its message above says why.")
    return classifier.load_model(folder / "model.pt")


def success(spec: Spec, folder: Path, model: nn.Module) -> list[float]:
    """Attack success rate of each attack, on the victim images of folder/val."""
    rates = []
    for trigger, (victim, target) in spec.attacks:
        images = sorted((folder / "val" / victim).iterdir())
        shown = classifier.load_pixels(images, lambda image, name=trigger: stamp(image, name))
        fooled = classifier.predict(model, shown).argmax(1) == DRAWN.index(target)
        rates.append(round(fooled.float().mean().item(), 3))
    return rates


# --- Rivals ---------------------------------------------------------------------------------------------


def spectre(rows: Tensor, share: float) -> Tensor:
    """SPECTRE (Hayase et al. 2021) of one class, float (N,): high is suspicious. rows: features (N, D).

    Algorithms 1 to 3 with a trimmed estimate in place of their robust one: 10 components, whitening by the
    covariance of the middle images, and quantum entropy scores (alpha 4). share: of bad images, which it is
    told.
    """
    centred = (rows - rows.mean(0)).double()
    count = min(10, len(rows) // 4)
    points = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:count].T
    kept = torch.ones(len(points), dtype=torch.bool)
    for _ in range(10):
        middle = points[kept].mean(0)
        covariance = torch.cov(points[kept].T) + 1e-6 * torch.eye(count, dtype=points.dtype)
        white = torch.linalg.solve_triangular(
            torch.linalg.cholesky(covariance), (points - middle).T, upper=False
        ).T
        distance = white.square().sum(1)
        kept = distance <= distance.quantile(max(0.5, 1 - 1.5 * share))
    excess = white.T @ white / len(white)
    excess = excess - torch.eye(count, dtype=points.dtype)
    weight = torch.linalg.matrix_exp(4 * excess / torch.linalg.matrix_norm(excess, 2).clamp(min=1e-9))
    return (white @ weight * white).sum(1)


def cleanlab_scores(middle: Tensor, labels: Tensor, seed: int) -> Tensor | None:
    """Label quality by cleanlab from out-of-fold logistic regression on our features; high is suspicious."""
    if get_label_quality_scores is None:
        return None
    rows = features.components(middle).numpy()
    rows = rows / rows.std()
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    known = np.unique(labels.numpy(), return_inverse=True)[1]
    guessed = cross_val_predict(
        LogisticRegression(max_iter=200), rows, known, cv=folds, method="predict_proba"
    )
    return torch.tensor(1 - get_label_quality_scores(known, guessed))


def rivals(
    spec: Spec, images: tuple[list[str], Tensor], bad: list[list[str]], seen: tuple[Tensor, Tensor]
) -> dict[str, list[float]]:
    """Recall among the first 1.5 n of each rival, attack by attack; all but cleanlab are told the class."""
    (files, labels), (middle, last) = images, seen
    found: dict[str, list[float]] = {}
    quality = cleanlab_scores(middle, labels, spec.number)
    if quality is not None:
        order = [files[i] for i in quality.argsort(descending=True, stable=True).tolist()]
        everything = {name for names in bad for name in names}
        found["cleanlab, not told the class"] = [checks.hits(order, everything)["recall_at_1.5n"]]
    for (_, (_, target)), names in zip(spec.attacks, bad):
        own = (labels == DRAWN.index(target)).nonzero().flatten()
        share = len(names) / len(own)
        methods = {
            "spectral signatures, last layer": features.spectral(last[own]),
            "spectral signatures, layer3": features.spectral(middle[own]),
            "activation clustering, last layer": features.clustering(last[own]),
            "activation clustering, layer3": features.clustering(middle[own]),
            "SPECTRE, last layer": spectre(last[own], share),
            "SPECTRE, layer3": spectre(middle[own], share),
        }
        for method, score in methods.items():
            order = [files[own[i]] for i in score.argsort(descending=True, stable=True).tolist()]
            found.setdefault(method, []).append(checks.hits(order, set(names))["recall_at_1.5n"])
    return found


# --- One row --------------------------------------------------------------------------------------------


def row(spec: Spec, photos: Path, base: Path) -> dict[str, Any]:
    """Make a set and its model, audit it, and keep what is worth keeping."""
    rng = random.Random(spec.name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        gather(spec, photos, folder, rng)
        bad = spoil(spec, folder, rng)
        images: Files = class_files(folder / "train")
        files = audit_data.names(images, folder)
        labels = torch.tensor([label for _, label in images])
        pixels = classifier.load_pixels([path for path, _ in images])
        model = tuned(folder, base, spec.number)
        rates = success(spec, folder, model)
    started = time.process_time()
    found = Audit([Suspect(name, checks.label_of(name)) for name in files])
    alike = neighbours.compare(pixels, len(files))
    checks.check_duplicates(found, files, alike.pairs)
    strays = checks.check_neighbours(found, alike.nearest, labels)
    quiet = cli.Out(plain=True)
    middle, last = audit_data.examine(found, model, (pixels, labels), alike.nearest, quiet, strays=strays)
    checks.rank(found)
    seconds = time.process_time() - started
    flagged = {suspect.file for suspect in found.ranking if suspect.flagged}
    everything = {name for names in bad for name in names}
    made: dict[str, Any] = {
        "name": spec.name,
        "images": len(files),
        "findings": found.kinds(),
        "flagged": len(flagged),
        "duplicates": len(checks.conflicts(found.duplicates)),
        "errors": found.errors,
        "seconds": round(seconds, 1),
    }
    if everything:
        order = [suspect.file for suspect in found.ranking]
        made["bad"] = len(everything)
        made["right"] = len(flagged & everything)
        made["ranking"] = round(checks.hits(order, everything)["recall_at_1.5n"], 3)
    found_for = {(trigger.looks_like, trigger.label) for trigger in found.triggers}
    made["attacks"] = [
        {
            "trigger": trigger,
            "pair": f"{victim} to {target}",
            "tuned": (trigger, (victim, target)) in TUNED,
            "bad": len(names),
            "success": rate,
            "right": len(flagged & set(names)),
            "flagged": sum(name.split("/")[1] == target for name in flagged),
            "named": (victim, target) in found_for,
        }
        for (trigger, (victim, target)), names, rate in zip(spec.attacks, bad, rates)
    ]
    if spec.attacks:
        made["rivals"] = {
            method: [round(value, 3) for value in values]
            for method, values in rivals(spec, (files, labels), bad, (middle, last)).items()
        }
    return made


# --- The page -------------------------------------------------------------------------------------------


def attack_lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """One line per kind of images, half and rate: what became of the attacks."""
    groups: dict[tuple[str, ...], list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for row in rows:
        kind, half, _, rate, _ = row["name"].split()
        for attack in row["attacks"]:
            learned = "0.9 or more" if attack["success"] >= 0.9 else "less"
            seen = "yes" if half == "0" or attack["tuned"] else "no"
            groups.setdefault((kind, seen, rate, learned), []).append((row, attack))
    lines = []
    for key, attacks in sorted(groups.items()):
        bad = sum(attack["bad"] for _, attack in attacks)
        right = sum(attack["right"] for _, attack in attacks)
        flagged = sum(attack["flagged"] for _, attack in attacks)
        named = sum(attack["named"] for _, attack in attacks)
        met = sum(
            attack["right"] >= 0.9 * attack["bad"] and attack["right"] >= 0.6 * attack["flagged"]
            for _, attack in attacks
        )
        precision = f"{right / flagged:.2f}" if flagged else "nothing flagged"
        line = [str(len(attacks)), str(named), f"{right / bad:.2f}", precision, exact(met, len(attacks))]
        lines.append([*key, *line])
    return lines


def ranking_lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Mean recall among the first 1.5 n: ours and the rivals', by kind and rate."""
    groups: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in rows:
        kind, _, _, rate, _ = row["name"].split()
        means = groups.setdefault((kind, rate), {})
        means.setdefault("ours, not told the class", []).append(row["ranking"])
        for method, values in row["rivals"].items():
            means.setdefault(method, []).extend(values)
    return [
        [*key, method, f"{sum(values) / len(values):.2f}", f"{min(values):.2f}"]
        for key, means in sorted(groups.items())
        for method, values in means.items()
    ]


def page(rows: list[dict[str, Any]]) -> str:
    """AUDIT.md."""
    poisoned = [row for row in rows if row["attacks"]]
    clean, noisy = ([r for r in rows if f" {what} " in r["name"]] for what in ("clean", "wrong labels"))
    alarms = []
    for kind in ("photographs", "drawings"):
        of = [row for row in clean if row["name"].startswith(kind)]
        if of:
            alarms.append(f"{kind}: {exact(sum(bool(row['findings']) for row in of), len(of))}")
    wrongly = [f"{row['name']}: {', '.join(row['findings'])}" for row in clean if row["findings"]]
    missed = [
        f"{row['name']}: {attack['trigger']}, {attack['pair']}, success rate {attack['success']:.2f}: "
        f"{attack['right']} of {attack['bad']} flagged, {attack['flagged']} flagged in the class"
        for row in poisoned
        for attack in row["attacks"]
        if attack["right"] < 0.9 * attack["bad"] or attack["right"] < 0.6 * attack["flagged"]
    ]
    return pages.render(
        "audit.md.jinja",
        rows=rows,
        attacks=attack_lines(poisoned),
        rankings=ranking_lines(poisoned),
        first=exact(sum(row["ranking"] >= 0.95 for row in poisoned), len(poisoned)) if poisoned else "none",
        alarms=alarms,
        wrongly=wrongly,
        missed=missed,
        noisy=noisy,
    )


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("--photos", type=Path, help="training part of GTSRB, official layout")
    args.add_argument("--base", type=Path, default=DEMO / "models/clean_model.pt", help="model to start from")
    args.add_argument("--only", default="", help="only sets with all these words in their name")
    args.add_argument("--rows", type=Path, default=HERE / "audit.jsonl", help="file of raw rows")
    args.add_argument("--output", type=Path, default=HERE / "AUDIT.md", help="page to write")
    return args.parse_args()


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    torch.set_num_threads(1)
    classifier.load_model(options.base)  # says what is wrong before minutes of work
    if options.photos and not (options.photos / "00014").is_dir():
        raise cli.UserError(f"{options.photos} holds no folder 00014: give GTSRB's training folder.")
    rows = []
    if options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()]
    for spec in specs():
        named = all(word in spec.name.split() for word in options.only.split())
        wanted = named and (spec.kind == "drawings" or options.photos)
        if not wanted or spec.name in [row["name"] for row in rows]:
            continue
        out.say(f"{spec.name}.")
        rows.append(row(spec, options.photos, options.base))
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    with cli.atomic_write(options.output) as scratch:
        scratch.write_text(page(rows), encoding="utf-8")
    out.say(f"Wrote {options.output}: {len(rows)} sets.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
