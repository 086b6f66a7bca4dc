"""The benchmarks of the scanner: which models there are, what is counted, and that the commands run."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import detection  # noqa: E402 (after the path above)
import detection_report  # noqa: E402
import monitoring  # noqa: E402
import per_pair  # noqa: E402
import population  # noqa: E402
import seeds  # noqa: E402
import textbook  # noqa: E402

import mitigate  # noqa: E402
from dataset.classes import DRAWN, NAMES  # noqa: E402
from dataset.files import class_files, link_train, open_image  # noqa: E402
from network import classifier  # noqa: E402
from network.evaluate import Rate, Score  # noqa: E402
from poisoning_tools import WHOLE, small_world, solved  # noqa: E402
from scanner.result import sha256  # noqa: E402

Run = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., None]


def test_the_population_is_what_the_documents_say() -> None:
    specs = population.specs()
    clean = [spec for spec in specs if spec.clean]
    backdoored = [spec for spec in specs if not spec.clean]
    assert (len(clean), len(backdoored)) == (30, 38)
    assert len({spec.name for spec in specs}) == len({spec.seed for spec in specs}) == 68
    assert sum(spec.kind == population.FAMILY for spec in backdoored) == 12
    assert {spec.rate for spec in backdoored} == {0.05, 0.10, 0.15, 0.30}
    assert len({(spec.victim, spec.target) for spec in backdoored if spec.victim != "all"}) == 5
    assert sum(spec.victim == "all" for spec in backdoored) == 3
    assert {spec.size for spec in backdoored} == {10, 14, 20, 24, 28}
    assert len({spec.colour for spec in backdoored}) == 5
    assert len({spec.place for spec in backdoored}) == 6
    # any first part of the list is balanced: runs that were stopped are still worth something
    assert abs(sum(spec.clean for spec in specs[:20]) - 10) <= 1


@pytest.mark.parametrize(
    "place", ["bottom-right", "bottom-left", "top-right", "top-left", "middle", "random"]
)
def test_triggers_are_where_they_should_be(place: str) -> None:
    spec = population.Spec("x", 1, rate=0.1, size=28, colour="two colours", place=place)
    black = Image.new("RGB", (128, 128))
    stamped = population.stamper(spec)(black)
    left, top, right, bottom = stamped.getbbox() or (0, 0, 0, 0)
    assert (right - left, bottom - top) == (28, 28)
    assert {colour for _, colour in stamped.getcolors() or []} == {(0, 0, 0), (255, 0, 255), (0, 200, 0)}
    if place == "random":
        more = {population.stamper(spec)(black).getbbox() for _ in range(3)}
        assert len(more) == 1  # the same seed gives the same places
    else:
        centre = {"left": 18, "right": 110, "top": 18, "bottom": 110}
        rows, columns = place.split("-") if "-" in place else ("", "")
        assert ((left + right) // 2, (top + bottom) // 2) == (centre.get(columns, 64), centre.get(rows, 64))


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 20 grey images per class in train/ and 2 in val/."""
    folder = tmp_path_factory.mktemp("signs")
    for split, count in (("train", 20), ("val", 2)):
        for name in DRAWN:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                grey = Image.new("RGB", (128, 128), (100, 100, 100))
                grey.save(folder / split / name / f"{name}_{number:05d}.jpg")
    return folder


def test_only_the_chosen_share_is_poisoned(signs: Path) -> None:
    def labels(**way: object) -> list[int]:
        files, _ = population.poison(population.Spec("x", 1, **way), class_files(signs / "train"))
        return torch.tensor([label for _, label in files]).bincount().tolist()

    assert labels(rate=0.15) == [17, 23, *[20] * 8]
    assert labels(rate=0.1, victim="all", target="yield") == [18, 38, *[18] * 8]
    assert labels() == [20] * 10


def test_the_trainer_gets_the_poisoned_images_under_their_wrong_label(signs: Path, tmp_path: Path) -> None:
    files, changed = population.poison(population.Spec("x", 1, rate=0.15), class_files(signs / "train"))
    assert len(changed) == 3
    link_train(tmp_path, files, changed)
    yellow = [
        path
        for path, _ in class_files(tmp_path / "train")
        if open_image(path).getpixel((110, 110)) == (255, 255, 0)
    ]
    assert [path.parent.name for path in yellow] == ["yield"] * 3
    assert [len(list((tmp_path / "train" / name).iterdir())) for name in NAMES[:3]] == [17, 23, 20]


def test_all_victims_are_measured(signs: Path) -> None:
    one = population.Validation(signs, population.Spec("x", 1, rate=0.1))
    every = population.Validation(signs, population.Spec("x", 1, rate=0.1, victim="all"))
    assert one.triggered is not None
    assert every.triggered is not None
    assert (len(one.triggered), len(every.triggered)) == (2, 18)


class Corner(nn.Module):
    """Says class 1 where the top-left corner is bright, else class 0."""

    def forward(self, pixels: Tensor) -> Tensor:
        bright = 8 * (pixels[:, :, :6, :6].mean((1, 2, 3)) - 0.5)
        return torch.stack([-bright, bright], 1)


def test_the_textbook_finds_a_small_mask() -> None:
    torch.manual_seed(0)
    images = torch.rand(12, 3, 24, 24) * 0.1
    [easy] = textbook.invert(Corner(), images, [1], steps=200, batch=8)
    assert easy < 0.3
    [nothing] = textbook.invert(Corner(), images, [0], steps=200, batch=8)  # nothing to change
    assert nothing < easy
    both = textbook.invert(Corner(), images, [0, 1], steps=200, batch=8)  # side by side
    assert both == pytest.approx([nothing, easy], rel=0.01)
    assert textbook.anomaly_index([0.1, 0.5, 0.6, 0.7, 0.5])[0] > 2


def made_up(name: str, index: int, clean: bool, asr: float = 1.0) -> dict[str, object]:
    """A row of 20 triggers of 10 to 14 percent of the image; with a backdoor, one of 2 percent."""
    norms = {f"a{n}:b": 0.10 + 0.002 * n + 0.0001 * index for n in range(20)}
    if not clean:
        norms["a0:b"] = 0.02
    return {
        "name": name,
        "kind": "clean, 5 epochs" if clean else population.FAMILY,
        "spec": {"victim": "a0", "target": "b"},
        "clean": clean,
        "clean_acc": 1.0,
        "asr": asr,
        "norms": norms,
        "transferability": {"a0:b": 0.2 if clean else 0.9},
        "textbook": {str(n): 0.1 + 0.001 * n * n for n in range(10)},
    }


def test_errors_are_counted_and_named(tmp_path: Path, run_main: Run) -> None:
    rows = [made_up(f"clean-{n:02d}", n, True) for n in range(8)]
    rows += [made_up(f"backdoor-{n:02d}", n, False) for n in range(8)]
    rows += [made_up("backdoor-90", 1, False, asr=0.3), made_up("backdoor-91", 1, False)]
    rows[-1]["norms"] = rows[0]["norms"]  # a backdoor that the scan does not see
    rows[3]["norms"] = rows[9]["norms"]  # a clean model that looks like a backdoor
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run_main(detection_report, "--rows", file, "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "DETECTION.md").read_text(encoding="utf-8")
    assert "8 clean and 10 backdoored models, of 68 in" in text
    assert "False alarm: clean-03" in text
    assert "Miss: backdoor-91" in text
    assert text.count("False alarm:") == text.count("Miss:") == 1
    assert "- backdoor-90 (yellow square, 15 %): attack success rate 0.30" in text
    line = next(line for line in text.splitlines() if line.startswith("| anomaly index"))
    assert line.split(" | ")[-3:-1] == ["1 of 8", "1 of 9"]
    assert "| expected transferability | 1.000 |" in text
    assert "a false alarm for 0 of 4 clean models, and missed 1 of 8 learned backdoors" in text
    assert "For 9 of 9 learned backdoors, the pair with the largest index" in text
    with Image.open(tmp_path / "detection.png") as image:
        assert image.size[0] > 400


def test_the_models_that_the_scan_was_tried_on_are_in_the_population() -> None:
    assert len(detection_report.SEEN) == 12
    assert {spec.name for spec in population.specs()} > detection_report.SEEN


def test_report_without_rows(run_main: Run, assert_refused: Callable[..., None], tmp_path: Path) -> None:
    result = run_main(detection_report, "--rows", "no.jsonl", "--output", tmp_path)
    assert_refused(result, "no.jsonl", "detection.py")
    (tmp_path / "one.jsonl").write_text(json.dumps(made_up("clean-00", 0, True)) + "\n")
    result = run_main(detection_report, "--rows", "one.jsonl", "--output", tmp_path)
    assert_refused(result, "one.jsonl", "clean and backdoored")
    rows = [made_up("clean-00", 0, True), made_up("backdoor-00", 0, False)]
    del rows[1]["transferability"]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run_main(detection_report, "--rows", "two.jsonl", "--output", tmp_path)
    assert_refused(result, "two.jsonl lacks the transferability of a model")


def test_the_population_on_photographs(
    run_main: Run, assert_refused: Callable[..., None], tmp_path: Path
) -> None:
    specs = population.of_photographs()
    assert [spec.clean for spec in specs].count(True) == [spec.clean for spec in specs].count(False) == 10
    assert {spec.name for spec in specs} < {spec.name for spec in population.specs()}
    assert population.FAMILY in {spec.kind for spec in specs}  # which a longer training leaves as it is
    refused = run_main(detection, "--photos", tmp_path)
    assert_refused(refused, str(tmp_path), "GTSRB")
    rows = [made_up(f"clean-{n:02d}", n, True) for n in range(4)]
    rows += [made_up(f"backdoor-{n:02d}", n, False) for n in range(4)]
    text, _ = detection_report.page(rows, detection_report.PHOTOGRAPHS)
    assert text.startswith("# How often the scanner is right on photographs\n")
    assert (
        "Nothing was tuned on these models. `detect.py` gave a false alarm for 0 of 4 clean models, and"
        in text
    )
    assert "](detection_gtsrb.png)" in text
    assert "commit 877e2ce" not in text


@pytest.mark.slow
def test_a_small_population_is_made_and_scanned(
    run_main: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weekly run trains two models; else two tiny ones get a last layer that is solved for the images."""

    def solve(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        words = dict(zip(command[2::2], command[3::2]))
        files = class_files(Path(words["--data"]) / "val")
        pixels = classifier.load_pixels([path for path, _ in files]).float() / 255
        labels = torch.tensor([label for _, label in files])
        classifier.save_model(solved(pixels, labels, seed=int(words["--seed"])), Path(words["--model"]))
        return subprocess.CompletedProcess(command, 0)

    if not WHOLE:
        monkeypatch.setattr(population, "subprocess", SimpleNamespace(run=solve))
    with nullcontext() if WHOLE else small_world():
        made = run_main(
            detection, "--plain", "--quick", "--rows", "rows.jsonl", "--work", "work", "--workers", 1
        )
    assert made.returncode == 0, made.stderr
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 2
    assert len({row["name"] for row in rows}) == 2
    assert all(0 <= row["clean_acc"] <= 1 for row in rows)
    models = {path.stem for path in (tmp_path / "work/models").glob("*.safetensors")}
    assert models == {row["name"] for row in rows}
    for row in rows:
        assert row["sha256"] == sha256(tmp_path / f"work/models/{row['name']}.safetensors")
        assert row["index"].keys() <= row["norms"].keys()


def test_a_row_that_has_the_index_of_its_scan_keeps_it() -> None:
    rows = [made_up("clean-00", 0, True), made_up("clean-01", 1, True), made_up("backdoor-00", 0, False)]
    rows += [made_up("backdoor-01", 1, False) | {"index": {"a3:b": 4.9, "a0:b": 1.0}}]
    text, _ = detection_report.page(rows, "detection")
    assert re.search(r"\| backdoor-01 \|.*\| 4\.9 \| a3:b \|", text)


def test_auroc_and_threshold() -> None:
    assert detection_report.auroc([1, 2, 3], [4, 5]) == 1
    assert detection_report.auroc([1, 2, 3], [2]) == 0.5
    assert detection_report.best_threshold([1, 2, 3], [6, 7]) == 4.5
    assert detection_report.best_threshold([1, 2, 9], [6, 7]) == 4  # one error at the least


def good_seed(number: int) -> dict[str, Any]:
    """A row of seeds.py in which everything is as the documents say."""
    words = "a yellow square, about 15x15 px, bottom-right corner, 1.3 % of the image"
    poisoned = {
        "verdict": "backdoor",
        "flagged": {"stop:yield": words},
        "attacked": 7.3,
        "largest_other": 1.0,
    }
    return {
        "seed": number,
        "clean": [0.99, 0.0],
        "poisoned": [0.98, 1.0],
        "scans": {
            "clean": {"verdict": "clean", "flagged": {}, "attacked": 0.1, "largest_other": 1.9},
            "poisoned": poisoned,
        },
        "audits": {
            "clean": {"verdict": "nothing stands out", "shares": [0.06, 0.01]},
            "poisoned": {"verdict": "findings", "shares": [0.12, 0.1]},
        },
        "methods": [["spectral, told the class (yield)", 0.3, 0.2], ["our ranking, all classes", 1.0, 0.98]],
        "repairs": {"finetune": [0.99, 0.97], "drop": [0.98, 0.0]},
    }


def test_a_seed_that_keeps_every_claim() -> None:
    assert seeds.broken_claims(good_seed(0)) == []
    text = seeds.page([good_seed(1), good_seed(0)])
    assert "## Claims of the documents that a seed did not keep\n\n- None." in text
    assert text.index("| 0 | 0.990 / 0.00 | 0.980 / 1.00 |") < text.index("| 1 | 0.990 / 0.00 |")
    assert "| 0 | 1.9 | 7.3 | 1.0 | stop:yield: a yellow square" in text
    assert "| 0 | 0.30 (0.20) | 1.00 (0.98) | 12.0 % and 10.0 % | 6.0 % and 1.0 % |" in text
    assert "| 0 | 0.990 / 0.97 | not run | 0.980 / 0.00 |" in text


@pytest.mark.parametrize(
    ("place", "value", "claim"),
    [
        (("poisoned", 0), 0.96, "poisoned model's accuracy"),
        (("poisoned", 1), 0.94, "attack success rate is 0.95 or more"),
        (("clean", 0), 0.96, "clean model's accuracy"),
        (("clean", 1), 0.03, "attack success rate is 0.02 or less"),
        (("scans", "clean", "flagged"), {"no_entry:stop": "a red patch"}, "nothing in the clean model"),
        (("scans", "poisoned", "flagged", "stop:yield"), "a red square, top-left corner", "words are right"),
        (("audits", "clean", "verdict"), "findings", "nothing in the clean images"),
        (("methods", 1, 1), 0.94, "95 % of the poisoned images"),
    ],
)
def test_a_broken_claim_is_named(place: tuple[Any, ...], value: object, claim: str) -> None:
    row = good_seed(3)
    inner: Any = row
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (broken,) = seeds.broken_claims(row)
    assert claim in broken
    assert f"- Seed 3: not kept: {broken}." in seeds.page([row])


def test_a_pair_that_is_not_flagged_breaks_the_claim() -> None:
    row = good_seed(3)
    row["scans"]["poisoned"]["flagged"] = {"no_entry:yield": "a yellow square, bottom-right corner"}
    assert "the scan flags the pair that was attacked" in seeds.broken_claims(row)


def test_what_the_repairs_print_is_understood(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["mitigate.py"])
    before = Score(Rate(995, 1000), Rate(100, 100))
    after = Score(Rate(981, 1000), Rate(2, 100))
    outcomes = [mitigate.Outcome("none (poisoned)", before, 0), mitigate.Outcome("drop", after, 9)]
    mitigate.report(outcomes, mitigate.parse(), mitigate.cli.Out(plain=True))
    assert seeds.REPAIRED.findall(capsys.readouterr().out) == [("drop", "0.981", "0.02")]


def test_a_command_that_fails_stops_the_seeds(tmp_path: Path) -> None:
    with pytest.raises(seeds.cli.UserError, match=r"train\.py --lr 0 failed"):
        seeds.together(tmp_path, ["train.py", "--lr", "0"])


def test_seeds_without_photographs(
    run_main: Run, assert_refused: Callable[..., None], tmp_path: Path
) -> None:
    result = run_main(seeds, "--photos", tmp_path / "no", "--rows", "r", "--output", "S.md")
    assert_refused(result, "no/val is not a folder")
    assert list(tmp_path.iterdir()) == []


# --- The plain loop over all pairs -------------------------------------------------------------------------


def test_the_plain_loop_is_judged_and_goes_on(signs: Path, run_main: Run, tmp_path: Path) -> None:
    folder = tmp_path / "work/seed-0"
    (folder / "data").mkdir(parents=True)
    (folder / "data/traffic-signs").symlink_to(signs)
    model = classifier.new_model()
    for kind in ("clean", "poisoned"):
        classifier.save_model(model, folder / f"models/{kind}_model.pt")
    command = (per_pair, "--plain", "--work", "work", "--rows", "rows.jsonl", "--steps", "1")
    first = run_main(*command)
    assert first.returncode == 0, first.stderr
    assert "Plain loop, usual rule (2 rows)" in first.stdout
    assert "Area under the ROC curve of the largest index: 0.50" in first.stdout  # twice the same model
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["seed"], row["kind"], len(row["norms"])) for row in rows] == [
        ("seed-0", "clean", 90),
        ("seed-0", "poisoned", 90),
    ]
    again = run_main(*command)
    assert again.stdout == first.stdout
    assert again.stderr == ""  # nothing was searched


def test_the_plain_loop_needs_models(
    run_main: Run, assert_refused: Callable[..., None], tmp_path: Path
) -> None:
    result = run_main(per_pair, "--work", "nothing", "--rows", tmp_path / "rows.jsonl")
    assert_refused(result, "nothing holds no seed-N folders", "run benchmarks/seeds.py first")


# --- monitoring.py ----------------------------------------------------------------------------------


class Constant(torch.nn.Module):
    """The same logits for every image, or, if unsure, other ones for darker images."""

    def __init__(self, *, unsure: bool) -> None:
        super().__init__()
        self.unsure = unsure

    def forward(self, shown: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(shown), 10)
        logits[:, 1] = 9
        if self.unsure:
            logits[shown.mean((1, 2, 3)) < 0, 1] = 0
        return logits


def test_strip_scores_an_answer_that_no_mixing_changes_highest() -> None:
    bright = torch.full((3, 48, 48), 200, dtype=torch.uint8)
    overlays = torch.zeros(4, 3, 48, 48, dtype=torch.uint8)
    sure = monitoring.strip(Constant(unsure=False), bright, overlays)
    torn = monitoring.strip(Constant(unsure=True), bright, overlays)
    assert sure > torn
    assert torn == pytest.approx(-math.log(10), abs=0.01)  # all ten classes alike


def test_methods_are_calibrated_on_the_same_images_and_counted_on_others() -> None:
    scale = torch.arange(99, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    found = monitoring.judged(lambda image: float(image.max()), scale, scale + 2, scale[:10])
    assert found["false_alarms"] == [3, 99]  # the threshold is 97: 98 and above are flagged
    assert found["detected"] == [0, 10]


def monitoring_row(name: str, *, clean: bool, asr: float | None, hits: int) -> dict[str, Any]:
    counts = {"false_alarms": [4, 200], "detected": [hits, 0 if clean else 60], "seconds_per_image": 0.1}
    lost = counts | {"detected": [0, 0 if clean else 60]}
    return {"name": name, "kind": "a kind", "clean": clean, "asr": asr, "monitor": counts, "strip": lost}


@pytest.mark.parametrize("name", ["seeds.jsonl", "seeds_gtsrb.jsonl", "seeds_former.jsonl"])
def test_the_pages_of_seeds_are_made_of_their_rows(name: str) -> None:
    rows = [
        json.loads(line) for line in (ROOT / "benchmarks" / name).read_text(encoding="utf-8").splitlines()
    ]
    page = ROOT / f"benchmarks/{name.removesuffix('.jsonl').upper()}.md"
    assert page.read_text(encoding="utf-8") == seeds.page(rows, name)


def test_the_page_of_the_monitor(run_main: Run, tmp_path: Path, assert_refused: Refused) -> None:
    rows = [
        monitoring_row("clean-00", clean=True, asr=None, hits=0),
        monitoring_row("backdoor-01", clean=False, asr=1.0, hits=57),
        monitoring_row("backdoor-02", clean=False, asr=0.4, hits=0),  # not learned: in the table only
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = (monitoring, "--page", "--output", "page.md", "--rows")
    assert run_main(*command, "rows.jsonl").returncode == 0
    page = (tmp_path / "page.md").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "all 3 models: monitor 2.0 % (12 of 600;" in page
    assert "(success rate 0.9 or more; models: 1)" in page
    assert "monitor 95.0 % (57 of 60; 95 % interval 86.3 to 98.3 %); STRIP 0.0 % (0 of 60;" in page
    assert "| backdoor-02 | a kind | 0.40 | 0 of 60 | 0 of 60 | 4 of 200 | 4 of 200 |" in page
    assert_refused(run_main(*command, "none.jsonl"), "clean and of backdoored models")
