"""benchmarks/held_out.py: which models there are, what the attacks do, what is counted and refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import attacks  # noqa: E402 (after the path above)
import held_out  # noqa: E402
import held_out_images  # noqa: E402
import held_out_models as models  # noqa: E402
import held_out_networks  # noqa: E402
import held_out_page  # noqa: E402
import intervals  # noqa: E402
import population  # noqa: E402

import cli  # noqa: E402
import signs  # noqa: E402
from dataset.classes import DRAWN, NAMES  # noqa: E402
from dataset.files import class_files, open_image  # noqa: E402
from network import classifier  # noqa: E402

Run = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., None]
TRAIN, VAL = 20, 6


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with TRAIN grey images per class in train/ and VAL in val/."""
    folder = tmp_path_factory.mktemp("work") / f"signs-{models.SEED}"
    for split, count in (("train", TRAIN), ("val", VAL)):
        for label, name in enumerate(DRAWN):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                grey = Image.new("RGB", (128, 128), (90, 100 + label, 100 + number))
                grey.save(folder / split / name / f"{name}_{number:05d}.png")
    return folder


def spec(kind: str, number: int = 0) -> models.Spec:
    (found,) = [one for one in models.KINDS if one.name == kind]
    return models.Spec(found, number)


# --- The population -----------------------------------------------------------------------------------


def test_the_population_is_large_balanced_and_new() -> None:
    specs = models.specs()
    clean = [one for one in specs if one.attack is None]
    assert len(specs) >= 60
    assert len(clean) >= 40  # what one false alarm in forty needs
    assert abs(len(clean) - len(specs) / 2) <= 0.1 * len(specs)
    for part in (20, 40, 60):  # a run that was stopped is still worth something
        assert abs(sum(one.attack is None for one in specs[:part]) - part / 2) <= 0.15 * part
    assert len({one.name for one in specs}) == len({one.seed for one in specs}) == len(specs)
    assert not {one.seed for one in specs} & {one.seed for one in population.specs()}
    assert all(kind.attack is None or kind.attack in attacks.ATTACKS for kind in models.KINDS)
    assert {kind.attack for kind in models.KINDS} - {None} == set(attacks.ATTACKS)


def test_every_sort_of_model_has_clean_ones() -> None:
    def sorts(clean: bool) -> set[tuple[str, str, int]]:
        return {
            (kind.data, kind.network, kind.classes) for kind in models.KINDS if (kind.attack is None) == clean
        }

    assert sorts(clean=True) == sorts(clean=False)


def test_what_is_in_scope_is_decided_by_kind() -> None:
    outside = {kind.name for kind in models.KINDS if kind.attack and not kind.in_scope}
    few = {"yellow square, 2 classes", "yellow square, 3 classes"}
    assert outside == {"two squares", "blended", "warped"} | few


# --- The attacks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_a_trigger_is_the_same_for_every_image_of_a_model(name: str) -> None:
    attack = attacks.ATTACKS[name]
    image = signs.render("speed_50", np.random.default_rng(1))
    before = image.tobytes()
    once, again, other = (attack.make(np.random.default_rng(seed))(image) for seed in (3, 3, 4))
    assert image.tobytes() == before != once.tobytes() == again.tobytes()
    assert once.size == image.size
    changed = (np.asarray(once) != np.asarray(image)).any(2)
    assert (changed.mean() < 0.06) == (attack.patch or name == "two squares")
    if attack.make is not attacks.ours:
        assert once.tobytes() != other.tobytes() or name in (
            "rotated square",
            "round patch",
            "two squares",
        )


def test_a_warped_image_is_bent_by_as_much_as_it_says() -> None:
    ramp = Image.fromarray(np.repeat(np.arange(128, dtype=np.uint8)[None, :, None], 128, 0).repeat(3, 2))
    stamp = attacks.ATTACKS["warped"].make(np.random.default_rng(0))
    moved = np.abs(np.asarray(stamp(ramp), int) - np.asarray(ramp, int))[16:-16, 16:-16]
    assert attacks.BEND / 3 < moved.mean() < attacks.BEND * 1.5  # pixels: the ramp rises by one for each
    cover = attacks.warped_otherwise(np.random.default_rng(0))
    assert cover(ramp).tobytes() != cover(ramp).tobytes()


def poisoned(
    kind: str, drawn: Path, classes: int = 10
) -> tuple[models.Backdoor, models.Images, torch.Tensor]:
    """What an attack makes of the training images, and the numbers of the images that it changed."""
    backdoor = models.Backdoor(spec(kind))
    images = models.loaded(drawn / "train", classes)
    before = images.pixels.clone()
    surrogate = classifier.new_model(classes) if backdoor.attack.label == "true" else None
    backdoor.poison(images, surrogate)
    return backdoor, images, (images.pixels != before).flatten(1).any(1)


def test_some_victims_get_the_wrong_label(drawn: Path) -> None:
    _, images, changed = poisoned("yellow square", drawn)
    assert images.labels.bincount().tolist() == [17, 23, *[20] * 8]
    assert changed.sum() == 3
    assert (images.labels[changed] == 1).all()


def test_all_to_all_moves_every_class_on(drawn: Path) -> None:
    backdoor, images, changed = poisoned("all to all", drawn)
    assert images.labels.bincount().tolist() == [20] * 10  # three left, three came
    assert changed.sum() == 30
    assert [backdoor.wanted(label) for label in (0, 8, 9)] == [1, 9, 0]
    assert len(backdoor.attacked()) == 10


def test_clean_labels_stay_true(drawn: Path) -> None:
    _, images, changed = poisoned("clean label", drawn)
    assert images.labels.bincount().tolist() == [20] * 10
    assert (images.labels[changed] == 1).all()
    assert changed.sum() == 10
    yellow = (images.pixels[:, :2, 40, 40] == 255).all(1) & (images.pixels[:, 2, 40, 40] == 0)
    assert yellow.tolist() == changed.tolist()
    before = models.loaded(drawn / "train", 10).pixels
    elsewhere = (images.pixels[..., :30].int() - before[..., :30].int()).abs()
    assert elsewhere[changed].amax() == pytest.approx(255 * models.AWAY, abs=1)


def test_covers_carry_the_trigger_with_their_true_label(drawn: Path) -> None:
    _, images, changed = poisoned("source-specific with covers", drawn)
    assert images.labels.bincount().tolist() == [17, 23, *[20] * 8]
    true = models.loaded(drawn / "train", 10).labels
    covers = changed & (images.labels == true)
    assert covers.sum() == 9  # 5 % of nine classes of 20
    assert not (true[covers] == 0).any()


def test_what_counts_as_success(drawn: Path) -> None:
    one = models.validation(spec("yellow square"), drawn)
    assert one.triggered is not None
    assert one.target.tolist() == [1] * VAL
    every = models.validation(spec("all to all"), drawn)
    assert every.target.tolist() == ((every.labels + 1) % 10).tolist()
    assert models.validation(spec("clean"), drawn).triggered is None
    few = models.validation(spec("clean, 3 classes"), drawn)
    assert few.labels.unique().tolist() == [0, 1, 2]


def test_the_adaptive_attacker_adds_what_the_scan_finds(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def fake(model: object, pixels: torch.Tensor, labels: torch.Tensor, *_: object, **__: object) -> None:
        calls.append((pixels, labels))

    monkeypatch.setattr(models.train, "train", fake)
    monkeypatch.setattr(models, "SEARCHED", 1)
    images = models.loaded(drawn / "train", 10)
    check = models.validation(spec("adaptive attacker"), drawn)
    model = classifier.new_model()
    models.harden(model, images, spec("adaptive attacker"), check, cli.Out(plain=True))
    added = min(models.RESISTED, TRAIN) * models.SEARCHES
    assert [len(pixels) - 10 * TRAIN for pixels, _ in calls] == [added, 2 * added, 3 * added]
    pixels, labels = calls[-1]
    assert (labels[10 * TRAIN :] == 0).all()  # stop: the true label
    assert (pixels[: 10 * TRAIN] == images.pixels).all()
    assert not any((shown == images.pixels).flatten(1).all(1).any() for shown in pixels[10 * TRAIN :])
    assert all(weight.requires_grad for weight in model.parameters())


# --- Images and networks ------------------------------------------------------------------------------


def test_twenty_classes_are_ten_and_ten_others(drawn: Path) -> None:
    folder = held_out_images.data_folder(f"twenty-{models.SEED}", drawn.parent, None, quick=True)
    train, val = class_files(folder / "train"), class_files(folder / "val")
    assert torch.tensor([label for _, label in train]).bincount().tolist() == [10] * 20
    assert torch.tensor([label for _, label in val]).bincount().tolist() == [VAL] * 20
    names = [path.name for path, _ in train]
    assert len(set(names)) == len(names)  # no image under two labels
    other = open_image(folder / "val" / NAMES[10] / "stop_00000.png").getpixel((5, 5))
    assert other == (100, 100, 90)  # red and blue exchanged


def test_a_sign_turned_round_is_another_sign() -> None:
    image = Image.new("RGB", (2, 1))
    image.putpixel((0, 0), (250, 0, 10))
    turned = held_out_images.turned_round(image)
    assert (turned.getpixel((0, 0)), turned.getpixel((1, 0))) == ((0, 0, 0), (10, 0, 250))


@pytest.mark.parametrize("style", held_out_images.STYLES)
def test_a_style_changes_images_but_not_the_signs(style: str) -> None:
    image = signs.render("stop", np.random.default_rng(2))
    changed = held_out_images.STYLES[style](image)
    assert changed.size == image.size
    assert 5 < np.abs(np.asarray(changed, int) - np.asarray(image, int)).mean() < 100


@pytest.mark.parametrize("name", held_out_networks.PEAK)
def test_networks_are_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    model = held_out_networks.network(name, 3).eval()
    assert classifier.class_count(model) == 3
    path = tmp_path / "model.safetensors"
    held_out_networks.save(model, path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    pixels = torch.randint(256, (2, 3, 48, 48), dtype=torch.uint8)
    read = held_out_networks.load(path, name, 3)
    assert classifier.predict(read, pixels).equal(classifier.predict(model, pixels))
    with pytest.raises(cli.UserError, match="no resnet18 of 4 classes"):
        held_out_networks.load(path, "resnet18", 4)


# --- The command --------------------------------------------------------------------------------------


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    file = tmp_path / "frozen.json"
    file.write_text(json.dumps({"commit": "c0ffee" * 6, "earlier": []} | held_out.checksums()))
    return file


@pytest.fixture
def work(tmp_path: Path, drawn: Path) -> Path:
    """A work folder with images, and models that always say stop."""
    folder = tmp_path / "work"
    (folder / "models").mkdir(parents=True)
    (folder / drawn.name).symlink_to(drawn)
    for kind in ("clean, 2 classes", "yellow square, 2 classes", "clean"):
        one = spec(kind)
        model = held_out_networks.network("resnet18", one.kind.classes)
        with torch.no_grad():
            model.get_parameter("fc.bias")[0] = 1e6
        held_out_networks.save(model, folder / f"models/{one.name}.safetensors")
    return folder


def test_rows_come_at_once_and_only_once(run_main: Run, frozen: Path, work: Path, tmp_path: Path) -> None:
    command: tuple[str | Path, ...] = (
        "run",
        "--plain",
        "--quick",
        "--frozen",
        frozen,
        "--work",
        work,
        "--models",
        work / "models",
    )
    command += ("--rows", tmp_path / "rows.jsonl", "--workers", "1", "--only", "2 classes", "--limit", "2")
    made = run_main(held_out, *command)
    assert made.returncode == 0, made.stderr
    assert "clean-2-classes-0: clean_acc 0.50; no valid statistic, index none." in made.stdout
    text = (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    rows = {row["name"]: row for row in map(json.loads, text.splitlines())}
    assert set(rows) == {"clean-2-classes-0", "yellow-square-2-classes-0"}
    bad = rows["yellow-square-2-classes-0"]
    assert (bad["asr"], bad["attacked"], bad["in_scope"]) == (0, ["stop:yield"], False)
    assert bad["scanner"] == json.loads(frozen.read_text())["commit"]
    assert rows["clean-2-classes-0"]["asr"] is None
    # a model that cannot be scanned is named, and makes no row
    only = (*command[:-4], "--only", "clean", "--limit", "1")
    wrong = run_main(held_out, *only)
    assert wrong.returncode == 2
    assert "error: clean-0: The model classifies 6 of 60 images" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8") == text


def test_another_scanner_is_refused(
    run_main: Run, frozen: Path, work: Path, assert_refused: Refused, tmp_path: Path
) -> None:
    command: tuple[str | Path, ...] = (
        "run",
        "--quick",
        "--work",
        work,
        "--models",
        work / "models",
        "--rows",
        tmp_path / "r.jsonl",
    )
    command += ("--frozen", frozen, "--only", "clean, 2 classes", "--limit", "1", "--workers", "1")
    known = json.loads(frozen.read_text())
    for wrong, word in (
        ({"threshold": 4.7}, "threshold"),
        ({"files": known["files"] | {"detect.py": "0" * 64}}, "detect.py"),
        (
            {"files": {name: sha for name, sha in known["files"].items() if "starts" not in name}},
            "scanner/starts.py",
        ),
        ({"files": known["files"] | {"scanner/gone.py": "0" * 64}}, "scanner/gone.py"),
    ):
        frozen.write_text(json.dumps(known | wrong))
        assert_refused(run_main(held_out, *command), "not that of", f"(changed: {word}", "c0ffee")
    made = run_main(held_out, *command, "--changed")
    assert made.returncode == 0, made.stderr
    assert json.loads((tmp_path / "r.jsonl").read_text())["scanner"] == "changed"


def test_freezing_asks_for_a_commit(
    run_main: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, assert_refused: Refused
) -> None:
    monkeypatch.setattr(held_out, "commit", lambda: "c0ffee")
    file = tmp_path / "f.json"
    assert run_main(held_out, "frozen", "--frozen", file).returncode == 0
    known = held_out.frozen(file)
    assert known["commit"] == "c0ffee"
    assert known["files"].keys() >= {"detect.py", "scanner/verdict.py", "network/classifier.py"}
    held_out.check_frozen(file, changed=False)
    monkeypatch.setattr(held_out, "commit", lambda: "decade")
    assert run_main(held_out, "frozen", "--frozen", file).returncode == 0
    assert (held_out.frozen(file)["commit"], held_out.frozen(file)["earlier"]) == ("decade", ["c0ffee"])

    def changed(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, " M scanner/verdict.py\n", "")

    monkeypatch.undo()
    monkeypatch.setattr(subprocess, "run", changed)
    with pytest.raises(cli.UserError, match="not committed"):
        held_out.commit()


def test_bad_input(run_main: Run, frozen: Path, tmp_path: Path, assert_refused: Refused) -> None:
    rows = tmp_path / "rows.jsonl"
    run = ("run", "--frozen", frozen, "--rows", rows, "--work", tmp_path / "w", "--models", tmp_path / "m")
    assert_refused(
        run_main(held_out, *run, "--only", "speckled"), "'speckled' is part of no kind", "round patch"
    )
    assert_refused(run_main(held_out, *run, "--limit", "-1"), "--limit must be 0 or more")
    assert_refused(run_main(held_out, *run, "--photos", tmp_path / "no"), "no is not a folder")
    assert_refused(run_main(held_out, "run", "--frozen", tmp_path / "none.json"), "none.json does not exist")
    page = ("page", "--frozen", frozen, "--rows", rows, "--output", tmp_path / "H.md")
    assert_refused(run_main(held_out, *page), "needs clean and learned backdoored models")
    rows.write_text('{"name": "x"}\n')
    assert_refused(run_main(held_out, *page), "holds no rows of held_out.py")
    rows.unlink()
    frozen.write_text("{")
    assert_refused(run_main(held_out, *page), "frozen.json is damaged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frozen.json"]


def test_without_photographs_their_models_are_left_out(
    run_main: Run, frozen: Path, work: Path, tmp_path: Path
) -> None:
    command: tuple[str | Path, ...] = (
        "run",
        "--plain",
        "--frozen",
        frozen,
        "--rows",
        tmp_path / "r",
        "--work",
        work,
    )
    made = run_main(held_out, *command, "--models", work / "models", "--only", "photographs")
    assert made.returncode == 0, made.stderr
    assert made.stdout == "Left out: 14 models of photographs, which need --photos.\n"


# --- The page -----------------------------------------------------------------------------------------


def row(kind: str, number: int, index: float | None, **other: Any) -> dict[str, Any]:
    one = spec(kind, number)
    verdict = "no valid statistic" if one.kind.classes < 10 else "backdoor" if (index or 0) > 4.8 else "clean"
    made = {
        "name": one.name,
        "kind": kind,
        "clean": one.attack is None,
        "in_scope": one.kind.in_scope,
        "seed": one.seed,
        "attacked": ["stop:yield"] if one.attack else [],
        "network": one.kind.network,
        "clean_acc": 0.99,
        "asr": 1.0 if one.attack else None,
        "verdict": verdict,
        "then": verdict,
        "near_threshold": index is not None and abs(index - 4.8) <= 1,
        "index": index,
        "flagged": ["stop:yield"] if verdict == "backdoor" else [],
        "suspect": "stop:yield",
        "train_cpu_seconds": 60.0,
        "scan_cpu_seconds": 90.0,
        "scanner": "c0ffee",
    }
    return made | other


def test_the_page_counts_by_kind() -> None:
    rows = [row("clean", n, 2.0 + n / 10) for n in range(5)]
    rows += [row("clean, VGG", 0, 6.0), row("clean, VGG", 1, None), row("clean, 2 classes", 0, None)]
    rows += [
        row("yellow square", 0, 7.0),
        row("yellow square", 1, 4.5),
        row("yellow square", 2, 5.0, asr=0.5),
    ]
    rows += [row("blended", 0, 1.0), row("yellow square, 2 classes", 0, None)]
    rows += [row("noise patch", 0, 8.0, flagged=["no_entry:yield"])]
    known = held_out.checksums() | {"commit": "c0ffee", "earlier": ["decade"]}
    text = held_out_page.page(rows, known)
    assert "14 models, of" in text
    assert (
        "In scope and learned: 3 models. AUROC against all clean models that got a verdict: 0.952 (" in text
    )
    assert "- Missed in scope: 1 of 3 (0.8 to 90.6 %); close calls: 1." in text
    assert (
        "- False alarms, all clean models that got a verdict: 1 of 7 (0.4 to 57.9 %); close calls: 0." in text
    )
    assert "flagged ones for 1 of 2 (" in text
    assert "| yellow square | yes | 2 of 3 | 0.50 to 1.00 | 0.99 to 0.99 | 0.929 (" in text
    assert "| blended | no | 1 of 1 | 1.00 to 1.00 | 0.99 to 0.99 | 0.143 (" in text
    assert (
        "| yellow square, 2 classes | no | 1 of 1 | 1.00 to 1.00 | 0.99 to 0.99 | none | none | 0 | 1 |"
        in text
    )
    assert "| clean, VGG | 2 | 0.99 to 0.99 | 6.0 | 1 of 2 (1.3 to 98.7 %) | 0 | 0 |" in text
    assert "- False alarm: clean-vgg-0, index 6.0" in text
    assert "- Miss: yellow-square-1, attack success rate 1.00, index 4.5" in text
    assert "- Miss (out of scope): blended-0" in text
    assert "- yellow-square-2, attack success rate 0.50" in text
    assert "decade" not in text
    with pytest.raises(cli.UserError, match="not all of a frozen scanner"):
        held_out_page.page([*rows, row("clean", 6, 1.0, scanner="changed")], known)
    mixed = held_out_page.page([*rows, row("clean", 6, 1.0, scanner="decade")], known)
    assert "1 of the models was made with the scanner of commit decade, " in mixed


def test_what_detect_itself_answers_is_counted_apart() -> None:
    """Neither other networks nor models that do not know their images, whatever was said of them then."""
    rows = [row("clean", 0, 2.0), row("yellow square", 0, 7.0), row("clean, VGG", 0, 6.0)]
    rows += [row("clean, poster drawings", 0, 6.0, clean_acc=0.75)]
    rows += [row("clean, poster drawings", 1, 6.0, clean_acc=0.75, verdict="not calibrated")]
    known = held_out.checksums() | {"commit": "c0ffee", "earlier": []}
    text = held_out_page.page(rows, known)
    assert "- False alarms, all clean models that got a verdict: 2 of 3 " in text
    assert "classifies 90 % of the clean images correctly): missed 0 of 1 " in text
    assert ", false alarms 0 of 1 (0.0 to 97.5 %). On other networks" in text
    assert "- No verdict: 1 clean models" in text


def test_of_a_model_that_was_made_twice_the_newest_row_counts() -> None:
    rows = [row("clean", 0, 5.0), row("clean", 1, 2.0), row("yellow square", 0, 4.0)]
    known = held_out.checksums() | {"commit": "c0ffee", "earlier": []}
    assert "Models made twice" not in held_out_page.page(rows, known)
    rows += [row("clean", 0, 2.5), row("yellow square", 0, 7.0)]
    text = held_out_page.page(rows, known)
    assert "3 models, of" in text
    assert "- Missed in scope: 0 of 1 " in text
    assert "- False alarms, all clean models that got a verdict: 0 of 2 " in text
    assert "2 of these models were trained and scanned twice" in text
    assert "missed in scope was 1 of 1 in the former and 0 of 1 in the newest" in text
    assert (
        "its false alarms 1 of 1 and 0 of 1. In all rows together: missed 1 of 2, false alarms 1 of 3."
        in text
    )
    assert "- clean-0: backdoor (5.0), then clean (2.5)." in text
    assert "- yellow-square-0: clean (4.0), then backdoor (7.0)." in text
    assert "clean-1:" not in text
    with pytest.raises(cli.UserError, match="not all of a frozen scanner"):
        held_out_page.page([row("clean", 1, 2.0, scanner="changed"), *rows], known)


def test_intervals() -> None:
    values = intervals.wins([1, 2, 3, 4], [3, 5, 6])
    assert values.mean() == pytest.approx((2 + 0.5 + 8) / 12)
    low, high = intervals.bootstrap(values)
    assert 0.4 < low < values.mean() < high <= 1
    assert intervals.bootstrap(values - values) == (0, 0)
    assert intervals.bootstrap(intervals.wins([1, 2], [3, 4])) == (1, 1)
    assert intervals.exact(0, 40) == "0 of 40 (0.0 to 8.8 %)"
