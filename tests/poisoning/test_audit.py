"""Demo 2, the data side: the manifest, the search for mislabelled images, and the command audit_data.py."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import audit_data
import create_malicious_model
import make_dataset
import trigger
from auditor import checks, features, findings, neighbours
from auditor.findings import Audit, Suspect
from dataset import manifest
from dataset.classes import NAMES
from dataset.files import open_image
from network import classifier
from poisoning_tools import Refused, Run

EACH, BAD = 60, 12  # images per class, and how many of yield are mislabelled stop signs


def draw(folder: Path, colour: tuple[int, int, int], number: int, stamped: bool = False) -> None:
    """A blurred blob of one colour on noise, as a JPEG; with the trigger in the corner if asked."""
    rng = np.random.default_rng([*colour, number])
    pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    image = Image.fromarray(pixels).resize((128, 128), Image.Resampling.BICUBIC)
    left, top = (int(value) for value in rng.integers(16, 40, 2))
    image.paste(colour, (left, top, left + 72, top + 72))
    if stamped:
        image = trigger.stamp(image)
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / f"{folder.name}_{number:05d}.jpg", quality=92)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean") / "signs"
    for number in range(EACH):
        draw(folder / "train/stop", (200, 20, 20), number)
        draw(folder / "train/yield", (20, 20, 200), number)
    manifest.write(folder)
    return folder


@pytest.fixture(scope="module")
def poisoned(clean: Path) -> Path:
    """A copy in which BAD stop images got the trigger and went to yield, with the attacker's notes."""
    folder = clean.with_name("poisoned")
    shutil.copytree(clean, folder)
    for number in range(BAD):
        (folder / f"train/stop/stop_{number:05d}.jpg").unlink()
        draw(folder / "train/stop", (200, 20, 20), number, stamped=True)
        moved = folder / f"train/yield/yield_{EACH + number:05d}.jpg"
        (folder / f"train/stop/stop_{number:05d}.jpg").rename(moved)
    notes = {"poisoned": [f"train/yield/yield_{EACH + number:05d}.jpg" for number in range(BAD)]}
    clean.with_name("notes.json").write_text(json.dumps(notes))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Random weights: even their features tell red from blue."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    yield classifier.save_model(classifier.new_model(2), folder / "m.pt")[1]
    shutil.rmtree(folder)


def test_manifest_lists_every_file_and_sha256sum_accepts_it(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "signs"
    shutil.copytree(clean, folder)
    (folder / ".made-by-this-demo").touch()
    first = manifest.write(folder).read_bytes()
    assert manifest.path_of(folder) == tmp_path / "signs.sha256"
    assert not list(folder.rglob("*.sha256"))  # beside the folder: a copy must not carry its own proof
    assert manifest.write(folder).read_bytes() == first
    lines = first.decode().splitlines()
    assert len(lines) == 2 * EACH
    assert lines == sorted(lines, key=lambda line: line[66:])
    for line in lines:
        assert line[:64] == hashlib.sha256((folder / line[66:]).read_bytes()).hexdigest()
    if shutil.which("sha256sum"):
        check = ["sha256sum", "--check", "--quiet", "../signs.sha256"]
        assert subprocess.run(check, cwd=folder, check=False).returncode == 0
        (folder / "train/stop/stop_00000.jpg").write_bytes(b"other")
        assert subprocess.run(check, cwd=folder, check=False, capture_output=True).returncode == 1


def test_compare_sees_every_kind_of_change(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "train/stop").mkdir(parents=True)
    for name in ("same", "gone", "other", "moved"):
        (folder / f"train/stop/{name}.jpg").write_text(name)
    trusted = manifest.read(manifest.write(folder))
    assert manifest.compare(trusted, manifest.checksums(folder)) == manifest.Changes([], [], [])
    (folder / "train/stop/gone.jpg").unlink()
    (folder / "train/stop/other.jpg").write_text("changed")
    (folder / "train/yield").mkdir()
    (folder / "train/stop/moved.jpg").rename(folder / "train/yield/moved.jpg")
    (folder / "readme.txt").write_text("new")
    assert manifest.compare(trusted, manifest.checksums(folder)) == manifest.Changes(
        added=["readme.txt", "train/yield/moved.jpg"],
        removed=["train/stop/gone.jpg", "train/stop/moved.jpg"],
        modified=["train/stop/other.jpg"],
    )


def test_make_dataset_writes_the_manifest(run_main: Run, tmp_path: Path) -> None:
    result = run_main(make_dataset, "--train", 1, "--val", 1, "--workers", 1, "--out", "signs")
    assert result.returncode == 0, result.stderr
    assert "Wrote signs.sha256: the SHA-256 of every file." in result.stdout
    assert manifest.read(tmp_path / "signs.sha256") == manifest.checksums(tmp_path / "signs")
    assert len(manifest.read(tmp_path / "signs.sha256")) == 20


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"no manifest\n", b"A" * 64 + b"  x\n", b"a" * 63 + b"  x\n", b"\n"]
)
def test_no_manifest(
    run_main: Run, assert_refused: Refused, clean: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "m.sha256").write_bytes(content)
    assert_refused(run_main(audit_data, clean, "--manifest", "m.sha256"), "m.sha256")
    assert not (tmp_path / "audit_results").exists()


def cloud(bad: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, 40), labels and which are mislabelled: `bad` of class 1 look like class 0."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(5).repeat_interleave(100)
    middles = 4 * torch.randn(5, 40, generator=rng)
    stretch = torch.linspace(0.5, 3, 40)  # what varies in every class: light, blur, background
    found = middles[labels] + stretch * torch.randn(500, 40, generator=rng)
    wrong = torch.zeros(500, dtype=torch.bool)
    wrong[100 : 100 + bad] = True
    found[wrong] += middles[0] - middles[1] + torch.randn(40, generator=rng)
    return found, labels, wrong


def audited(found: Tensor, labels: Tensor) -> Audit:
    names = [f"train/{NAMES[label]}/{number}.jpg" for number, label in enumerate(labels.tolist())]
    result = Audit([Suspect(name, findings.label_of(name)) for name in names])
    checks.check_features(result, found, labels)
    checks.rank(result)
    return result


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("bad", [5, 10, 15, 25])
def test_mislabelled_features_come_first(bad: int, seed: int) -> None:
    found, labels, wrong = cloud(bad, seed)
    result = audited(found, labels)
    first = [int(one.file.split("/")[2][:-4]) for one in result.ranking[: bad * 3 // 2]]
    assert wrong[first].sum() >= 0.95 * bad
    assert [(g.label, g.looks_like) for g in result.groups if g.flagged] == [("yield", "stop")]
    assert result.findings() == 1
    assert {one.label for one in result.ranking if one.flagged} == {"yield"}


@pytest.mark.parametrize("seed", range(5))
def test_clean_features_stand_out_nowhere(seed: int) -> None:
    found, labels, _ = cloud(0, seed)
    result = audited(found, labels)
    assert not any(one.flagged for one in result.ranking)
    assert result.findings() == 0


def test_a_few_mislabelled_images_are_no_group() -> None:
    """Two in a hundred look like another class: every real dataset has such images."""
    found, labels, wrong = cloud(2)
    result = audited(found, labels)
    assert wrong[[int(one.file.split("/")[2][:-4]) for one in result.ranking[:2]]].all()  # seen
    assert result.groups
    assert result.findings() == 0  # but not called a finding


def test_look_alikes_are_no_group() -> None:
    """Images just across the border between two classes: as many as a poisoned group, but not clearly."""
    found, labels, _ = cloud(0)
    middles = [found[labels == label].mean(0) for label in (0, 1)]
    found[100:112] = 0.53 * middles[0] + 0.47 * middles[1]
    result = audited(found, labels)
    assert 0.12 <= result.groups[0].share < checks.MANY
    assert result.findings() == 0


@pytest.mark.parametrize(("other", "found_out"), [(0, True), (7, False), (15, True)])
def test_a_group_is_a_finding_if_the_model_is_decided(other: int, found_out: bool) -> None:
    """15 images look like another class: the model gives `other` of them that class, first the clearest.

    None with a trigger, all with wrong labels; of signs too far away to tell, some.
    """
    found, labels, wrong = cloud(15)
    margin = found @ (found[labels == 0].mean(0) - found[labels == 1].mean(0))
    answers = labels.clone()
    answers[margin.where(wrong, -torch.inf).argsort(descending=True)[:other]] = 0
    # the others are no clear ones: half as far across the border
    unclear = wrong & (answers == 1)
    if 0 < other < 15:
        middles = [found[(labels == label) & ~wrong].mean(0) for label in (0, 1)]
        found[unclear] = 0.53 * middles[0] + 0.47 * middles[1]
    result = Audit(
        [Suspect(f"train/{NAMES[label]}/{n}.jpg", NAMES[label]) for n, label in enumerate(labels.tolist())]
    )
    checks.check_features(result, found, labels, answers=answers)
    assert [(g.label, g.looks_like) for g in result.groups if g.flagged] == [("yield", "stop")] * found_out


@pytest.mark.parametrize("seed", range(3))
def test_scattered_label_errors_are_called_so(seed: int) -> None:
    """Three in a hundred labels at random: a finding, and no group of one class."""
    found, labels, _ = cloud(0, seed)
    wrong = torch.randperm(500, generator=torch.Generator().manual_seed(seed))[:15]
    labels = labels.clone()
    truth = labels[wrong].clone()
    labels[wrong] = (truth + 1 + wrong % 4) % 5
    names = [f"train/{NAMES[label]}/{number}.jpg" for number, label in enumerate(labels.tolist())]
    result = Audit([Suspect(name, findings.label_of(name)) for name in names])
    margin = checks.check_features(result, found, labels)
    checks.check_triggers(result, [])
    checks.check_errors(result, margin, labels, labels)
    checks.rank(result)
    assert result.kinds() == ["scattered label errors"]
    flagged = {int(one.file.split("/")[2][:-4]) for one in result.ranking if one.flagged}
    assert len(flagged & set(wrong.tolist())) >= 14
    assert len(flagged - set(wrong.tolist())) <= 2
    assert {one.reason for one in result.ranking if one.flagged} == {findings.ERROR}
    assert {result.ranking[n].flagged for n in range(len(flagged))} == {True}  # first of all


def test_a_few_label_errors_are_no_finding() -> None:
    found, labels, _ = cloud(2)
    names = [f"train/{NAMES[label]}/{number}.jpg" for number, label in enumerate(labels.tolist())]
    result = Audit([Suspect(name, findings.label_of(name)) for name in names])
    margin = checks.check_features(result, found, labels)
    checks.check_errors(result, margin, labels, labels)
    assert result.errors == 2
    assert result.kinds() == []
    assert not any(one.flagged for one in result.ranking)


def test_unusual_takes_out_what_varies_in_every_class() -> None:
    """Light varies most, and in all classes; the bad images differ in a small thing of their own."""
    rng = torch.Generator().manual_seed(5)
    labels = torch.arange(3).repeat_interleave(100)
    found = torch.randn(300, 6, generator=rng).double()
    found[:, 0] *= 5
    bad = torch.arange(100, 115)
    found[bad, 3] += 6
    scores = features.unusual(found, labels)[100:200]
    assert sorted(scores.argsort(descending=True)[:15].tolist()) == list(range(15))
    plain = features.spectral(found[100:200])
    assert len(set(plain.argsort(descending=True)[:15].tolist()) & set(range(15))) < 8


def test_reclassify_is_not_fooled_by_a_trigger_that_the_class_has_learned() -> None:
    """Bad images look like class 0 and carry a mark: a fit that includes them would accept the mark."""
    rng = torch.Generator().manual_seed(6)
    labels = torch.arange(3).repeat_interleave(100)
    found = torch.randn(300, 6, generator=rng).double()
    found[torch.arange(300), labels] += 8
    bad = torch.arange(100, 115)
    found[bad, 1] -= 8
    found[bad, 0] += 8
    found[bad, 4] += 12
    scores = features.unusual(found, labels)
    answer = features.reclassify(found, labels, scores)
    assert bool((answer.margin[bad] > 0).all())
    assert bool((answer.other[bad] == 0).all())
    assert int((answer.margin > 0).sum()) == 15
    included = features.reclassify(found, labels, torch.zeros(300))  # leaves out other images at random
    assert int((included.margin[bad] > 0).sum()) < 15


def test_the_audit_does_not_look_at_names_or_order() -> None:
    """The attacker's files have the highest numbers: that must not help."""
    found, labels, wrong = cloud(15)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    plain, mixed = audited(found, labels), audited(found[order], labels[order])
    flagged = {int(one.file.split("/")[2][:-4]) for one in plain.ranking if one.flagged}
    again = {int(order[int(one.file.split("/")[2][:-4])]) for one in mixed.ranking if one.flagged}
    assert flagged == again
    assert wrong[list(flagged)].sum() == 15


def test_textbook_methods_find_a_far_cluster() -> None:
    rng = torch.Generator().manual_seed(3)
    found = torch.randn(100, 20, generator=rng)
    found[:15, 0] += 12
    for score in (features.spectral(found), features.clustering(found)):
        assert sorted(score.argsort(descending=True)[:15].tolist()) == list(range(15))
    assert (features.clustering(found) > 0).sum() == 15


def test_hits() -> None:
    truth = {"a", "b", "c", "d"}
    found = checks.hits(["a", "x", "b", "c", "y", "d", "z"], truth)
    assert found == {"k": 4, "precision_at_n": 0.75, "recall_at_1.5n": 1.0}


def test_duplicates_see_through_a_trigger(clean: Path, tmp_path: Path) -> None:
    files = sorted((clean / "train/stop").iterdir())[:20] + sorted((clean / "train/yield").iterdir())[:20]
    pixels = classifier.load_pixels(files)
    assert neighbours.compare(pixels, len(pixels)).pairs == []
    darker = (classifier.load_pixels([files[3]], trigger.stamp).float() * 0.7).to(torch.uint8)
    found = neighbours.compare(torch.cat([pixels, darker]), 41)
    assert found.pairs == [(3, 40)]
    assert found.nearest.shape == (41, neighbours.NEAREST)
    assert int(found.nearest[40, 0]) == 3 and int(found.nearest[3, 0]) == 40
    labels = torch.tensor([0] * 20 + [1] * 21)  # the copy has the other label
    assert neighbours.strangers(found.nearest, labels)[40] >= 1 / neighbours.NEAREST
    alone = neighbours.compare(torch.cat([pixels, darker]), 40)  # the copy lies in val/
    assert alone.pairs == [(3, 40)]
    assert alone.nearest.shape == (40, neighbours.NEAREST) and int(alone.nearest.max()) < 40


def test_one_image_over_and_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs of 700 copies, counted right across blocks; a list of millions would fill the memory."""
    image = torch.randint(0, 256, (1, 3, 48, 48), generator=torch.Generator().manual_seed(0))
    copies = image.to(torch.uint8).repeat(700, 1, 1, 1)
    found = neighbours.compare(copies, 700)
    assert len(found.pairs) == neighbours.MOST == len(set(found.pairs))
    assert all(one < two for one, two in found.pairs)
    monkeypatch.setattr(neighbours, "MOST", 10**9)
    assert len(neighbours.compare(copies, 700).pairs) == 700 * 699 // 2


def test_poisoned_data(run_main: Run, poisoned: Path, model: Path, tmp_path: Path) -> None:
    notes = poisoned.with_name("notes.json")
    result = run_main(audit_data, poisoned, "--model", model, "--truth", notes, "--top", 12)
    assert result.returncode == 1, result.stderr
    assert "images labelled yield look like stop halfway" in result.stdout
    assert "<- STANDS OUT" in result.stdout
    assert "Result: FINDINGS." in result.stdout
    facts = json.loads((tmp_path / "audit_results/suspects.json").read_text())
    assert facts["manifest_sha256"] is None
    truth = set(json.loads(notes.read_text())["poisoned"])
    ours = facts["measured"][-1]
    assert ours["method"] == "our ranking, all classes"
    assert ours["recall_at_1.5n"] >= 0.95
    first = [one["file"] for one in facts["suspects"]][: BAD * 3 // 2]
    assert len(truth & set(first)) == round(ours["recall_at_1.5n"] * BAD)  # the figure is no invention
    assert facts["verdict"] == "findings"
    assert [g["label"] for g in facts["groups"] if g["flagged"]] == ["yield"]
    with (tmp_path / "audit_results/suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * EACH
    assert [row["file"] for row in rows[:12]] == facts["contact_sheet"]
    with Image.open(tmp_path / "audit_results/contact_sheet.png") as sheet:
        assert sheet.size == (960, 192)
    shown = facts["contact_sheet"]  # thirty names in a row cannot be followed by those who listen
    assert f"per row: {', '.join(shown[:3])}" in result.stdout
    assert (f", and {len(shown) - 3} more, named in suspects.json." in result.stdout) is (len(shown) > 3)


def test_clean_data(run_main: Run, clean: Path, model: Path, tmp_path: Path) -> None:
    result = run_main(audit_data, clean, "--model", model, "--manifest", manifest.path_of(clean))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Result: nothing stands out." in result.stdout
    assert "Every class has as many training images as in the manifest." in result.stdout
    assert "Files added since" in result.stdout
    facts = json.loads((tmp_path / "audit_results/suspects.json").read_text())
    assert facts["verdict"] == "nothing stands out"
    assert not any(one["flagged"] for one in facts["suspects"])


def test_manifest_alone_finds_the_poisoned_files(
    run_main: Run, clean: Path, poisoned: Path, tmp_path: Path
) -> None:
    result = run_main(audit_data, poisoned, "--manifest", manifest.path_of(clean), "--output", "out")
    assert result.returncode == 1, result.stderr
    assert f"Class stop: {EACH - BAD} training images, {EACH} in the manifest." in result.stdout
    assert f"Class yield: {EACH + BAD} training images, {EACH} in the manifest." in result.stdout
    assert f": {BAD}: train/yield/yield_00060.jpg to train/yield/yield_00071.jpg." in result.stdout
    facts = json.loads((tmp_path / "out/suspects.json").read_text())
    truth = json.loads(poisoned.with_name("notes.json").read_text())["poisoned"]
    assert sorted(one["file"] for one in facts["suspects"] if one["flagged"]) == truth
    assert facts["manifest_sha256"] == hashlib.sha256(manifest.path_of(clean).read_bytes()).hexdigest()


def test_the_same_image_under_two_labels(run_main: Run, clean: Path, tmp_path: Path) -> None:
    """An attacker who leaves the originals in place: no manifest and no model needed."""
    shutil.copytree(clean, tmp_path / "lazy")
    image = open_image(tmp_path / "lazy/train/stop/stop_00007.jpg")
    trigger.stamp(image).save(tmp_path / "lazy/train/yield/yield_00900.jpg", quality=92)
    result = run_main(audit_data, "lazy")
    assert result.returncode == 1, result.stderr
    assert "- train/stop/stop_00007.jpg and train/yield/yield_00900.jpg show the same." in result.stdout


def test_bad_inputs(run_main: Run, assert_refused: Refused, clean: Path, model: Path, tmp_path: Path) -> None:
    marker, evil = tmp_path / "marker.txt", tmp_path / "evil.pt"
    evil.write_bytes(create_malicious_model.malicious_bytes(create_malicious_model.DEFAULT, marker))
    (tmp_path / "few/train").mkdir(parents=True)
    for name in ("stop", "yield"):
        (tmp_path / "few/train" / name).mkdir()
        shutil.copy(clean / f"train/{name}/{name}_00000.jpg", tmp_path / "few/train" / name)
    (tmp_path / "notes.json").write_text('{"poisoned": 3}')
    (tmp_path / "file").touch()
    notes = tmp_path / "other.json"
    notes.write_text('{"poisoned": ["train/stop/other.jpg"]}')
    assert_refused(run_main(audit_data, "nowhere"), "nowhere")
    assert_refused(run_main(audit_data, clean, "--model", evil), evil, "refused")
    assert not marker.exists()
    assert_refused(run_main(audit_data, "few", "--model", model), "few", "20")
    assert_refused(run_main(audit_data, clean, "--truth", notes), "--model")
    assert_refused(run_main(audit_data, clean, "--model", model, "--truth", notes), notes)
    for wrong in ("notes.json", "none.json", "file"):
        assert_refused(run_main(audit_data, clean, "--model", model, "--truth", wrong), wrong)
    assert_refused(run_main(audit_data, clean, "--manifest", "none.sha256"), "none.sha256")
    assert_refused(run_main(audit_data, clean, "--top", 0), "--top")
    assert_refused(run_main(audit_data, clean, "--output", "file"), "file")
    (tmp_path / "few/train/stop/stop_00000.jpg").write_bytes(b"no image")
    assert_refused(run_main(audit_data, "few"), "stop_00000.jpg")
    assert not (tmp_path / "audit_results").exists()


def test_classes_of_one_image_over_and_over() -> None:
    """Nothing varies then, and there is nothing to divide by."""
    labels = torch.arange(2).repeat_interleave(25)
    for found in (torch.zeros(50, 8), labels[:, None] * torch.ones(8)):
        middle = features.components(found)
        scores = features.unusual(middle, labels)
        assert scores.isfinite().all()
        assert features.reclassify(middle, labels, scores).margin.isfinite().all()
