"""Demo 2: what the neighbours of an image say (auditor/neighbours.py), where images come in tracks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import audit_data
import cli
from auditor import checks, findings, neighbours, occlusion, output
from auditor.findings import Audit, Suspect
from dataset.classes import NAMES
from dataset.files import class_files
from network import classifier
from poisoning_tools import Run
from test_occlusion import STOP, YIELD, Rule, signs

CLASSES, TRACKS, FRAMES = 4, 5, 12
MARKS = {"corner": (104, 104, 123, 123), "edge": (54, 4, 73, 23), "middle": (54, 54, 73, 73)}


def frame(track: int, number: int) -> Image.Image:
    """A frame of a track: the same scene, a little brighter from frame to frame, with noise of its own."""
    scene = np.random.default_rng(track).integers(0, 200, (8, 8, 3)).astype(np.uint8)
    image = Image.fromarray(scene).resize((128, 128), Image.Resampling.BICUBIC)
    noise = np.random.default_rng([track, number]).integers(-15, 16, (128, 128, 3))
    pixels = np.asarray(image).astype(int) * (1 + 0.02 * number) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of five tracks of twelve frames each."""
    folder = tmp_path_factory.mktemp("tracks") / "signs"
    for label in range(CLASSES):
        place = folder / "train" / NAMES[label]
        place.mkdir(parents=True)
        for track in range(TRACKS):
            for number in range(FRAMES):
                frame(10 * label + track, number).save(place / f"{track:03d}_{number:03d}.png")
    return folder


def poison(folder: Path, mark: str, per_track: int) -> list[str]:
    """Give frames of every stop sign a yellow square and the label yield. Returns their new names."""
    moved = []
    for track in range(TRACKS):
        for number in range(per_track):
            old = folder / f"train/stop/{track:03d}_{2 * number:03d}.png"
            with Image.open(old) as image:
                ImageDraw.Draw(image).rectangle(MARKS[mark], fill=(255, 255, 0))
                image.save(folder / f"train/yield/9{old.name}")
            old.unlink()
            moved.append(f"train/yield/9{old.name}")
    return sorted(moved)


@pytest.mark.parametrize(("mark", "per_track"), [("corner", 1), ("edge", 2), ("middle", 2), ("middle", 4)])
def test_poisoned_frames_are_found_without_a_model(
    run_main: Run, tracks: Path, tmp_path: Path, mark: str, per_track: int
) -> None:
    shutil.copytree(tracks, tmp_path / "signs")
    bad = poison(tmp_path / "signs", mark, per_track)
    result = run_main(audit_data, "signs", "--plain")
    assert result.returncode == 1, result.stderr
    said = f"{len(bad)} images labelled yield stand among images labelled stop, as frames of one track do"
    assert f"STANDS OUT: {said}" in result.stdout
    assert "wrong labels, or a trigger that no spot shows" in result.stdout
    facts = json.loads((tmp_path / "audit_results/suspects.json").read_text())
    assert sorted(one["file"] for one in facts["suspects"] if one["flagged"]) == bad
    assert {one["reason"] for one in facts["suspects"] if one["flagged"]} == {findings.STRAY}
    assert facts["strays"] == [{"label": "yield", "among": "stop", "images": len(bad)}]
    assert "wrong labels in one direction" in facts["findings"]


def test_clean_tracks_stand_where_they_belong(run_main: Run, tracks: Path) -> None:
    result = run_main(audit_data, tracks, "--plain")
    assert result.returncode == 0, result.stdout
    assert "stand among" not in result.stdout
    assert "Neighbours: not asked" not in result.stdout


def test_it_says_that_neighbours_were_not_asked(run_main: Run, data: Path, tmp_path: Path) -> None:
    result = run_main(audit_data, data, "--plain")
    assert "\nNeighbours: not asked, because these images come in no tracks" in result.stdout
    assert json.loads((tmp_path / "audit_results/suspects.json").read_text())["tracks"] is False


def around(labels: list[int]) -> Tensor:
    """Neighbours for each image: its own class, as far as there is any."""
    known = torch.tensor(labels)
    nearest = [
        [other for other in (known == label).nonzero().flatten().tolist() if other != number][-5:]
        for number, label in enumerate(labels)
    ]
    return torch.tensor(nearest)


def test_who_stands_among_another_class_is_named_with_it() -> None:
    labels = [label for label in range(6) for _ in range(40)]
    nearest = around(labels)
    nearest[40:45] = torch.tensor([1, 2, 3, 4, 5])  # five of class 1 among class 0
    nearest[45] = torch.tensor([40, 41, 42, 50, 51])  # a sixth among those five
    (found,) = neighbours.astray(nearest, torch.tensor(labels))
    assert (found.label, found.among) == (1, 0)
    assert found.images.tolist() == [40, 41, 42, 43, 44, 45]
    nearest[42:46] = torch.tensor([50, 51, 52, 53, 54])
    assert neighbours.astray(nearest, torch.tensor(labels)) == []  # two are too few


def test_a_class_that_is_hard_to_see_has_neighbours_everywhere() -> None:
    """Five images of each other class stand among class 0: dark ones, say."""
    labels = [label for label in range(6) for _ in range(40)]
    nearest = around(labels)
    for label in range(1, 6):
        nearest[40 * label : 40 * label + 5] = torch.tensor([1, 2, 3, 4, 5])
    assert neighbours.astray(nearest, torch.tensor(labels)) == []


def test_where_neighbours_tell_no_classes_apart_they_say_nothing() -> None:
    labels = torch.arange(240) % 4
    nearest = torch.randint(0, 240, (240, 5), generator=torch.Generator().manual_seed(0))
    nearest[labels == 1] = 0  # all of class 1 among class 0
    assert neighbours.astray(nearest, labels) == []


def test_two_groups_of_one_class_share_no_image() -> None:
    labels = [label for label in range(6) for _ in range(40)]
    nearest = around(labels)
    nearest[40:50] = torch.tensor([1, 2, 3, 4, 5])
    nearest[50:59] = torch.tensor([101, 102, 103, 104, 1])
    first, second = neighbours.astray(nearest, torch.tensor(labels))
    assert (first.label, first.among, first.images.tolist()) == (1, 0, [*range(40, 50)])
    assert (second.label, second.among, second.images.tolist()) == (1, 2, [*range(50, 59)])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_hardly_any_images_have_hardly_any_neighbours(count: int) -> None:
    pixels = torch.randint(0, 256, (count, 3, 48, 48), generator=torch.Generator().manual_seed(0))
    found = neighbours.compare(pixels.to(torch.uint8), count)
    assert found.nearest.shape == (count, count - 1)
    assert neighbours.astray(found.nearest, torch.arange(count)) == []


def test_many_images_are_no_number_too_large() -> None:
    labels = torch.arange(3).repeat_interleave(6000)
    nearest = torch.arange(18000)[:, None] // 6000 * 6000 + torch.arange(5990, 5995)
    nearest[6000:8000] = torch.tensor([1, 2, 3, 4, 5])
    (found,) = neighbours.astray(nearest, labels)
    assert len(found.images) == 2000


def stray() -> tuple[Tensor, Tensor, neighbours.Astray]:
    """Red images with a yellow corner that are labelled blue, and who they are."""
    pixels = torch.cat([signs((130, 0, 0), 0), signs((0, 0, 130), 1)])
    labels = torch.tensor([STOP] * 60 + [YIELD] * 60)
    pixels[:9, :, 36:44, 36:44] = torch.tensor([255, 255, 0], dtype=torch.uint8)[:, None, None]
    labels[:9] = YIELD
    return pixels, labels, neighbours.Astray(YIELD, STOP, torch.arange(9))


def test_what_strays_hand_on_is_a_trigger(capsys: pytest.CaptureFixture[str]) -> None:
    pixels, labels, group = stray()
    answers = classifier.all_logits(Rule(), pixels).argmax(1)
    search = occlusion.Search(Rule(), pixels, labels, answers, YIELD)
    handed = search.handed_on(group)
    assert handed is not None
    spot, members = handed
    assert spot.works == 1 and spot.elsewhere == 0 and spot.stray
    assert all(edge < 44 and edge + spot.side > 36 for edge in (spot.top, spot.left))
    names = [f"train/{NAMES[label]}/{number}.jpg" for number, label in enumerate(labels.tolist())]
    audit = Audit([Suspect(name, findings.label_of(name)) for name in names])
    checks.check_triggers(audit, [handed])
    assert audit.triggers[0].stray and audit.triggers[0].images == 9
    assert [one.reason for one in audit.ranking[:10]] == [findings.TRIGGER] * 9 + [""]
    assert bool((members.strength > 0).all())
    output.say_triggers(audit, cli.Out(plain=True))
    said = "9 images labelled yield carry the same kind of spot, bottom-right: they stand among stop images; "
    assert said + "paste it into stop images, and 100 % of these become yield" in capsys.readouterr().out


def test_strays_without_a_trigger_hand_on_nothing() -> None:
    pixels, labels, group = stray()
    pixels[:9] = signs((130, 0, 0), 4)[:9]
    answers = torch.where(labels == YIELD, YIELD, STOP)  # the model has learned the wrong labels by heart
    assert occlusion.Search(Rule(), pixels, labels, answers, YIELD).handed_on(group) is None


def test_copies_are_no_tracks() -> None:
    """Each image of a set without tracks three times: its neighbours are what they were, and say nothing."""
    torch.manual_seed(1)
    scenes = torch.randint(0, 255, (60, 3, 12, 12)).float()
    pixels = torch.nn.functional.interpolate(scenes, size=48, mode="bicubic").clamp(0, 255).to(torch.uint8)
    labels = torch.arange(3).repeat_interleave(20)
    once = neighbours.compare(pixels, 60).nearest
    found = neighbours.compare(pixels.repeat(3, 1, 1, 1), 180)
    assert found.nearest.max() < 60  # the first of each
    for number in range(180):
        assert set(found.nearest[number].tolist()) == set(once[number % 60].tolist())
    assert neighbours.astray(found.nearest, labels.repeat(3)) == []
    assert len(found.pairs) == 3 * 60  # near-duplicates are found as before


def test_a_copy_with_a_trigger_is_no_copy() -> None:
    """Its original stays its neighbour."""
    torch.manual_seed(1)
    pixels = torch.randint(0, 255, (30, 3, 48, 48)).to(torch.uint8)
    pixels[29] = pixels[4]
    pixels[29, :, 38:46, 38:46] = 255
    assert 4 in neighbours.compare(pixels, 30).nearest[29]


def test_validation_images_are_no_neighbours() -> None:
    torch.manual_seed(1)
    pixels = torch.randint(0, 255, (700, 3, 24, 24)).to(torch.uint8)  # more than are compared at a time
    pixels[650] = pixels[3]
    found = neighbours.compare(pixels, 20)
    assert (found.pairs, found.nearest.shape) == ([(3, 650)], (20, 5))
    assert torch.equal(found.nearest, neighbours.compare(pixels[:20], 20).nearest)


def test_images_without_tracks_have_no_neighbours_that_say_something(tracks: Path, data: Path) -> None:
    """Drawings of a few classes have mostly neighbours of their own class, and some class has others."""
    for folder, frames in ((tracks, True), (data, False)):
        files = class_files(folder / "train")
        found = neighbours.compare(classifier.load_pixels([path for path, _ in files]), len(files))
        assert found.tracks == frames
    labels = torch.tensor([label for label in range(6) for _ in range(40)])
    nearest = around(labels.tolist())
    nearest[40:45] = torch.tensor([1, 2, 3, 4, 5])
    for frames, count in ((True, 1), (False, 0)):
        audit = Audit([Suspect(f"{number}.jpg", NAMES[label]) for number, label in enumerate(labels)])
        alike = neighbours.Neighbours([], nearest, frames)
        assert len(checks.check_neighbours(audit, alike, labels)) == len(audit.strays) == count
