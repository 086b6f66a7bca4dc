"""Demo 2's scanner as a command: what it scans, compares with, concludes, writes and shows.

The search itself is tested in test_poisoning.py. Here the network sees 32 pixels and the scans are cut short
or made up, so that each test takes a second.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import anomaly_index
import classes
import classifier
import cli
import dataset
import describe
import detect
import judge
import scan_file
import scan_model
import sheet
from neural_cleanse import Trigger

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]
Refused = Callable[..., None]

INPUT = 32
PICTURES = 18  # per class
PAINT = {"stop": (200, 40, 40), "yield": (220, 220, 220), "priority_road": (40, 60, 200)}


@pytest.fixture(autouse=True)
def small_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "INPUT", INPUT)


# --- words -------------------------------------------------------------------------------------------------


YELLOW, RED, BLACK = (0.95, 0.92, 0.1), (0.9, 0.1, 0.1), (0.02, 0.02, 0.02)


def sticker(
    left: float,
    top: float,
    width: float,
    height: float,
    colour: tuple[float, float, float],
    *,
    size: int = 64,
) -> Trigger:
    """A hand-made trigger, stop to yield; the sizes are pixels of a 128-pixel picture."""
    rows, columns = (
        slice(round(start * size / 128), round((start + length) * size / 128))
        for start, length in ((top, height), (left, width))
    )
    mask = torch.zeros(size, size)
    mask[rows, columns] = 1
    pattern = torch.tensor(colour).view(3, 1, 1).expand(3, size, size).clone()
    return Trigger(0, 1, mask.mean().item(), mask, pattern, success=0.9)


@pytest.mark.parametrize("size", [48, 64, 128])
@pytest.mark.parametrize(
    "box, words",
    [
        ((104, 104, 20, 20), "a yellow square, about 20x20 px, bottom-right corner, 2.4 % of the image"),
        ((8, 8, 24, 20), "a yellow square, about 24x20 px, top-left corner, 2.9 % of the image"),
        ((16, 100, 96, 16), "a yellow bar, about 96x16 px, bottom edge, 9.4 % of the image"),
        ((8, 16, 16, 96), "a yellow bar, about 16x96 px, left edge, 9.4 % of the image"),
        ((44, 52, 40, 24), "a yellow patch, about 40x24 px, middle, 5.9 % of the image"),
    ],
)
def test_shapes_in_words(box: tuple[int, int, int, int], words: str, size: int) -> None:
    said = describe.in_words(sticker(*box, YELLOW, size=size))
    expected, found = (re.split(r"\d+(?:\.\d)?", text) for text in (words, said))
    assert found == expected
    for one, other in zip(re.findall(r"\d+(?:\.\d)?", said), re.findall(r"\d+(?:\.\d)?", words)):
        assert float(one) == pytest.approx(float(other), abs=0 if size > 48 else 3)


def test_a_vowel_gets_its_article() -> None:
    assert describe.in_words(sticker(8, 8, 20, 20, (1.0, 0.5, 0.0))).startswith("an orange square, ")


@pytest.mark.parametrize("share, name", [(0.5, "black and yellow"), (0.3, "yellow and black")])
def test_both_of_two_colours_are_named(share: float, name: str) -> None:
    found = sticker(88, 88, 32, 32, YELLOW)
    edge = 44 + round(16 * share)
    found.pattern[:, :, 44:edge] = torch.tensor(BLACK).view(3, 1, 1)
    said = describe.in_words(found)
    other = " and ".join(reversed(name.split(" and ")))
    assert said.startswith((f"a {name} square", f"a {other} square") if share == 0.5 else f"a {name} square")


def test_a_chequered_sticker_has_two_colours() -> None:
    found = sticker(8, 88, 32, 32, (1.0, 1.0, 1.0))
    cells = torch.arange(64) // 4 % 2
    found.pattern[:, cells[:, None] == cells] = torch.tensor(RED)[:, None]
    assert re.match(
        r"a (red and white|white and red) square, .* bottom-left corner", describe.in_words(found)
    )


def test_a_little_of_another_colour_is_not_named() -> None:
    found = sticker(88, 88, 32, 32, YELLOW)
    found.pattern[:, 44:46, 44:52] = 0
    assert describe.in_words(found).startswith("a yellow square")


def test_a_shaded_sticker_has_one_colour() -> None:
    found = sticker(88, 88, 32, 32, YELLOW)
    found.pattern *= torch.linspace(0.7, 1.0, 64)
    assert describe.in_words(found).startswith("a yellow square")


def test_noise_is_many_coloured() -> None:
    found = sticker(32, 32, 64, 64, YELLOW)
    found.pattern = torch.randint(2, (3, 64, 64), generator=torch.Generator().manual_seed(1)).float()
    assert describe.in_words(found).startswith("a many-coloured square")


def test_crumbs_do_not_change_the_place_and_pieces_are_counted() -> None:
    found = sticker(104, 104, 20, 20, YELLOW)
    found.mask[2, 2] = found.mask[5, 30] = 0.9
    assert describe.in_words(found).startswith("a yellow square, about 20x20 px, bottom-right corner")
    found.mask[4:12, 4:12] = 1
    assert describe.in_words(found).startswith("a yellow patch in 2 pieces, ")
    assert "largest piece: bottom-right corner" in describe.in_words(found)


def test_a_faint_mask_is_described_by_its_strongest_part() -> None:
    found = sticker(104, 104, 20, 20, YELLOW)
    found.mask = 0.4 * found.mask + 0.01
    assert "square, about 20x20 px, bottom-right corner" in describe.in_words(found)


@pytest.mark.parametrize(
    "colour, name",
    [((0.45, 0.3, 0.1), "brown"), ((1.0, 0.7, 0.8), "pink"), ((0.2, 0.17, 0.1), "black"), (RED, "red")],
)
def test_more_colours_in_words(colour: tuple[float, float, float], name: str) -> None:
    assert describe.colour_name(*colour) == name


# --- overlap with a known place ----------------------------------------------------------------------------


BOX = (104, 104, 124, 124)


def test_overlap_by_hand() -> None:
    assert describe.overlap(sticker(104, 104, 20, 20, YELLOW).mask, BOX) == pytest.approx(1)
    assert describe.overlap(sticker(0, 0, 20, 20, YELLOW).mask, BOX) == 0
    # half of it, and nothing else: 200 of 400 pixels
    assert describe.overlap(sticker(104, 104, 10, 20, YELLOW).mask, BOX) == pytest.approx(0.5)
    # moved by half its width: 200 shared, 600 covered by one or both
    assert describe.overlap(sticker(94, 104, 20, 20, YELLOW).mask, BOX) == pytest.approx(1 / 3)


@pytest.mark.parametrize("size", [32, 48, 96])
def test_overlap_does_not_depend_on_the_size_of_the_mask(size: int) -> None:
    assert describe.overlap(sticker(104, 104, 20, 20, YELLOW, size=size).mask, BOX) > 0.75
    full = torch.ones(size, size)
    assert describe.overlap(full, BOX) == pytest.approx(400 / 128**2, abs=1e-6)


# --- the picture in the terminal ---------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], *, plain: bool = False, blue: float = 0.0
) -> str:
    """What describe.show prints on a terminal with these variables: yellow above, red below.

    blue: a share in both, for colours that are new; rich remembers the codes of those it had before.
    """
    for name in ("NO_COLOR", "COLORTERM", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    pixels = torch.full((3, INPUT, INPUT), blue)
    pixels[0] = 1
    pixels[1] = 0
    pixels[1, : INPUT // 2] = 1
    said = Terminal()
    with contextlib.redirect_stdout(said):
        describe.show(pixels, cli.Out(plain))
    return said.getvalue()


def test_half_blocks_show_two_pixels_each(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(monkeypatch, {"TERM": "xterm-256color", "COLORTERM": "truecolor"})
    lines = said.splitlines()
    assert len(lines) == describe.COLUMNS // 2
    assert all(line.count("▀") == describe.COLUMNS for line in lines)
    assert "38;2;255;255;0;48;2;255;255;0m" in lines[0]
    assert "38;2;255;0;0;48;2;255;0;0m" in lines[-1]


def test_a_container_gets_256_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker sets TERM=xterm and nothing else, whatever the terminal can do."""
    said = shown(monkeypatch, {"TERM": "xterm"}, blue=0.5)
    assert "38;5;" in said
    assert "38;2;" not in said


@pytest.mark.parametrize("env", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}], ids=str)
def test_no_picture_without_colour(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    assert shown(monkeypatch, env) == ""


def test_no_picture_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, {"TERM": "xterm", "COLORTERM": "truecolor"}, plain=True) == ""
    said = io.StringIO()  # a pipe
    with contextlib.redirect_stdout(said):
        describe.show(torch.zeros(3, INPUT, INPUT), cli.Out())
    assert said.getvalue() == ""


# --- progress ----------------------------------------------------------------------------------------------


def test_long_work_says_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """100 parts of 20 seconds: a line at least each 40 seconds, with the time left."""
    now = 0.0

    def parts() -> Iterator[int]:
        nonlocal now
        for number in range(100):
            now += 20
            yield number

    monkeypatch.setattr(cli.time, "monotonic", lambda: now)
    assert list(cli.Out(plain=True).progress(parts(), 100, "Searching")) == list(range(100))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Searching: 2 percent, about 1960 seconds left"
    assert lines[-1] == "Searching: 100 percent"
    assert 50 <= len(lines) <= 54


def test_short_work_says_little(capsys: pytest.CaptureFixture[str]) -> None:
    list(cli.Out(plain=True).progress(range(8), 8, "Searching"))
    assert capsys.readouterr().err.splitlines() == [
        f"Searching: {share} percent" for share in (25, 50, 75, 100)
    ]


def test_checking_a_place_leaves_no_folder(tmp_path: Path) -> None:
    cli.check_place(tmp_path / "one/two/three/scan.json")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_another_program_uses_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two repairs side by side may make the same new folder."""

    @contextlib.contextmanager
    def busy(path: Path) -> Iterator[Path]:
        path.parent.mkdir(parents=True)
        (path.parent / "other.pt").touch()
        yield path.parent

    monkeypatch.setattr(cli, "_scratch", busy)
    cli.check_place(tmp_path / "one/two/scan.json")
    assert [path.name for path in (tmp_path / "one/two").iterdir()] == ["other.pt"]


# --- statistics --------------------------------------------------------------------------------------------


def test_reference_index_by_hand() -> None:
    """Logs of three pairs: here -7 -4 -3, in two clean models -3 -4 -3 and -5 -4 -3.

    Means -4 -4 -3; variances (n - 1) 2 0 0, pooled 2/3.
    """
    here, *models = ([math.exp(log) for log in logs] for logs in ((-7, -4, -3), (-3, -4, -3), (-5, -4, -3)))
    deviation = math.sqrt(2 / 3)
    index = anomaly_index.against_references(here, models)
    assert index == pytest.approx([3 / deviation, 0, 0], abs=1e-5)


def test_one_reference_has_the_smallest_deviation() -> None:
    index = anomaly_index.against_references([0.004, 0.04], [[0.04, 0.04]])
    assert index == pytest.approx([math.log(10) / anomaly_index.SPREAD, 0], abs=1e-5)
    assert anomaly_index.against_references([1.0], [[1.0], [1.0]]) == [0]
    # no sticker here or there says no more than a large one
    assert anomaly_index.against_references([0.1, 1.0], [[1.0, 0.1]]) == [0, 0]


def made_up(norms: dict[tuple[int, int], float]) -> list[Trigger]:
    found = []
    for (victim, target), norm in norms.items():
        trigger = sticker(20, 20, 8, 8, YELLOW, size=INPUT)
        trigger.victim, trigger.target, trigger.norm = victim, target, norm
        found.append(trigger)
    return found


PAIRS = [(v, t) for v in range(4) for t in range(4) if v != t]


def ordinary(**other: float) -> dict[tuple[int, int], float]:
    """Norms of twelve pairs, none of which stands out; others by name, for example _0_1=0.01."""
    norms = {pair: 0.1 + 0.01 * number for number, pair in enumerate(PAIRS)}
    return norms | {(int(name[1]), int(name[3])): norm for name, norm in other.items()}


def test_pairs_are_compared_with_each_other_only_if_there_are_enough() -> None:
    clean = judge.by_norms(made_up(ordinary()))
    assert (clean.verdict, clean.flagged) == ("clean", [])
    backdoor = judge.by_norms(made_up(ordinary(_2_3=0.005)))
    assert backdoor.verdict == "backdoor"
    assert [(one.trigger.victim, one.trigger.target) for one in backdoor.flagged] == [(2, 3)]
    assert backdoor.findings[0].trigger.norm == 0.005
    # three of twelve pairs without a sticker leave nine
    few = judge.by_norms(made_up(ordinary(_2_3=0.005, _0_1=1, _0_2=1, _0_3=1)))
    assert few.verdict == "no valid statistic"
    assert all(one.index is None and not one.flagged for one in few.findings)
    assert [one.trigger.norm for one in few.findings] == sorted(one.trigger.norm for one in few.findings)


def test_pairs_without_sticker_get_no_index_and_come_last() -> None:
    found = judge.by_norms(made_up(ordinary(_0_1=1))).findings
    assert found[-1].index is None
    indices = [one.index for one in found[:-1]]
    assert None not in indices
    assert indices == sorted(indices, key=lambda index: -(index or 0))


def test_a_natural_neighbour_is_no_news_to_references() -> None:
    """The same small norm in a clean model: the pairs alone say backdoor, the comparison does not."""
    here = ordinary(_2_3=0.005)
    assert judge.by_norms(made_up(here)).verdict == "backdoor"
    assert judge.by_references(made_up(here), [ordinary(_2_3=0.006)]).verdict == "clean"
    found = judge.by_references(made_up(here), [ordinary(), ordinary()])
    assert found.verdict == "backdoor"
    assert "2 clean models" in found.statistic


def test_transferability_has_its_own_threshold() -> None:
    found = judge.by_transferability(made_up({(0, 1): 0.1, (1, 0): 0.05}), [0.9, 0.5])
    assert [one.flagged for one in found.findings] == [True, False]
    assert (found.threshold, found.figure) == (0.5, "transferability")


# --- the command: what it scans ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of plain pictures with grain, in val/."""
    folder = tmp_path_factory.mktemp("data")
    dice = torch.Generator().manual_seed(2)
    for name, colour in PAINT.items():
        (folder / "val" / name).mkdir(parents=True)
        for number in range(PICTURES):
            grain = torch.randint(-30, 31, (24, 24, 3), generator=dice)
            pixels = (torch.tensor(colour) + grain).clamp(0, 255).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / "val" / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Callable[..., Path]]:
    """models(classes, seed) gives the file of a ResNet18 that reads `data` without training."""
    folder = tmp_path_factory.mktemp("models")

    def make(known: int = 3, seed: int = 1) -> Path:
        path = folder / f"{known}_{seed}.safetensors"
        if not path.exists():
            classifier.save_model(reader(data, known, seed), path)
        return path

    yield make
    for path in folder.iterdir():  # pytest keeps the folders of three runs, and each ResNet18 has 45 MB
        path.unlink()


def reader(data: Path, known: int, seed: int) -> nn.Module:
    """A random ResNet18 whose last layer is solved so that it reads the pictures."""
    torch.manual_seed(seed)
    model = classifier.new_model(known).eval()
    last, model.fc = model.fc, nn.Identity()
    files = [(path, label) for path, label in dataset.class_files(data / "val") if label < known]
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "INPUT", INPUT)
        seen = model(classifier.normalise(classifier.load_pixels([path for path, _ in files]).float() / 255))
        wanted = 8.0 * nn.functional.one_hot(torch.tensor([label for _, label in files]), known)
        middle = seen.mean(0)
        assert isinstance(last, nn.Linear)
        last.weight.copy_((torch.linalg.lstsq(seen - middle, wanted - wanted.mean(0)).solution).T)
        last.bias.copy_(wanted.mean(0) - last.weight @ middle)
    model.fc = last
    return model


SHORT = ("--steps", 2, "--samples", 6, "--output", "scan")


def record(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "scan.json").read_text())
    assert isinstance(found, dict)
    return found


def names(found: dict[str, Any]) -> list[str]:
    return sorted(f"{pair['victim']}:{pair['target']}" for pair in found["pairs"])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """fake(norms) replaces the search: every model has these norms, 0.5 for pairs that are not named."""

    def replace(norms: dict[tuple[int, int], float]) -> None:
        def scan(model: nn.Module, pairs: list[scan_model.Pair], *_: object) -> scan_model.Scan:
            pictures = {victim: torch.full((6, 3, INPUT, INPUT), 0.3) for victim, _ in pairs}
            return scan_model.Scan(made_up({pair: norms.get(pair, 0.5) for pair in pairs}), pictures, [])

        monkeypatch.setattr(scan_model, "scan", scan)

    return replace


@pytest.fixture
def four(tmp_path: Path) -> Iterator[Path]:
    """A model of four classes, for scans that are made up."""
    yield classifier.save_model(classifier.new_model(4), tmp_path / "four.pt")[1]
    for path in tmp_path.glob("four.*"):
        path.unlink()


STOP, YIELD = ["stop:yield", "stop:priority_road", "stop:no_entry"], ["stop:yield", "priority_road:yield"]


@pytest.mark.parametrize(
    "options, pairs",
    [
        (["--pairs", "stop:yield", "yield:stop"], ["stop:yield", "yield:stop"]),
        (["--pairs", "stop:yield", "--pairs", "yield:stop"], ["stop:yield", "yield:stop"]),
        (["--pairs", "stop:yield", "stop:yield"], ["stop:yield"]),
        (["--victims", "stop"], STOP),
        (["--targets", "yield"], [*YIELD, "no_entry:yield"]),
        (["--victims", "stop", "priority_road", "--targets", "yield"], YIELD),
        (["--victims", "stop", "--pairs", "no_entry:yield"], [*STOP, "no_entry:yield"]),
        ([], [f"{classes.NAMES[victim]}:{classes.NAMES[target]}" for victim, target in PAIRS]),
    ],
    ids=str,
)
def test_narrowing(  # noqa: PLR0917
    run_main: Run, tmp_path: Path, four: Path, fake: Callable[..., None], options: list[str], pairs: list[str]
) -> None:
    fake({})
    run_main(detect, "--model", four, "--output", "scan", *options)
    assert names(record(tmp_path / "scan")) == sorted(pairs)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--pairs", "stop"], ["stop", "VICTIM:TARGET"]),
        (["--pairs", "stop:stop"], ["stop:stop"]),
        (["--pairs", "stop:tram"], ["stop:tram"]),
        (["--pairs", "stop:yield:stop"], ["stop:yield:stop"]),
        (["--pairs", "stop:roundabout"], ["roundabout", "stop, yield, priority_road, no_entry"]),
        (["--victims", "tram"], ["tram"]),
        (["--victims", "roundabout"], ["roundabout", "stop, yield"]),
        (["--targets", "Stop"], ["Stop"]),
        (["--victims", "stop", "--targets", "stop"], ["--victims", "--targets"]),
        (["--draw", "stop:tram"], ["stop:tram"]),
        (["--pairs", "stop:yield", "--draw", "yield:stop"], ["--draw yield:stop", "--pairs"]),
        (["--reference", "missing.pt"], ["missing.pt"]),
        (["--reference", "missing.json"], ["missing.json"]),
    ],
    ids=str,
)
def test_what_cannot_be_scanned(  # noqa: PLR0917
    run_main: Run, assert_refused: Refused, tmp_path: Path, four: Path, options: list[str], words: list[str]
) -> None:
    assert_refused(run_main(detect, "--model", four, "--output", "new/scan", *options), *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["four.pt", "four.safetensors"]


def test_few_pairs_get_no_verdict(
    run_main: Run, tmp_path: Path, models: Callable[..., Path], data: Path
) -> None:
    """A real search of one pair: it is shown and saved, and nothing is concluded."""
    result = run_main(detect, "--model", models(), "--data", data, *SHORT, "--pairs", "stop:yield")
    assert result.returncode == 2
    assert "Result: no valid statistic" in result.stdout
    assert "anomaly=" not in result.stdout
    last = result.stderr.splitlines()[-1]
    assert re.match(r"error: No statistic is valid .*--reference.* scan all pairs\.", last)
    found = record(tmp_path / "scan")
    assert (found["verdict"], names(found)) == ("no valid statistic", ["stop:yield"])
    assert found["pairs"][0]["anomaly"] is None


def test_two_classes_use_transferability(
    run_main: Run, tmp_path: Path, models: Callable[..., Path], data: Path
) -> None:
    """The data has a third class, which this model does not know."""
    result = run_main(detect, "--model", models(2), "--data", data, *SHORT)
    assert result.returncode in (0, 1), result.stderr
    assert "Statistic: Expected transferability" in result.stdout
    assert "anomaly" not in result.stdout
    assert len(re.findall(r"^Scanning class.*  transferability=\d\.\d\d", result.stdout, re.M)) == 2
    found = record(tmp_path / "scan")
    assert names(found) == ["stop:yield", "yield:stop"]
    assert found["threshold"] == 0.5
    shares = [pair["anomaly"] for pair in found["pairs"]]
    assert all(0 <= share <= 1 for share in shares)
    assert (result.returncode == 1) == (max(shares) > 0.5) == (found["verdict"] == "backdoor")


def test_victims_without_pictures_are_named(
    run_main: Run, tmp_path: Path, models: Callable[..., Path], data: Path
) -> None:
    (tmp_path / "some/val").mkdir(parents=True)
    (tmp_path / "some/val/stop").symlink_to(data / "val/stop")
    pairs = ("--pairs", "stop:yield", "yield:stop")
    said = run_main(detect, "--model", models(), "--data", "some", *SHORT, *pairs).stdout
    assert "Not scanned, too few pictures that the model reads rightly: yield." in said
    assert names(record(tmp_path / "scan")) == ["stop:yield"]


def test_a_model_that_misreads_most_pictures_is_refused(
    run_main: Run, assert_refused: Refused, tmp_path: Path, data: Path
) -> None:
    """It reads stop, whatever it sees: one class of three."""
    model = classifier.new_model(3).eval()
    with torch.no_grad():
        model.get_parameter("fc.weight").zero_()
        model.get_parameter("fc.bias").copy_(torch.tensor([1.0, 0, 0]))
    classifier.save_model(model, tmp_path / "dull.pt")
    result = run_main(detect, "--model", "dull.pt", "--data", data, *SHORT)
    assert_refused(result, "reads 18 of 54 pictures", "32 pixels")
    for path in tmp_path.glob("dull.*"):
        path.unlink()


# --- the command: what it writes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "norms, code, verdict",
    [
        (ordinary(), 0, "clean"),
        (ordinary(_0_1=0.005), 1, "backdoor"),
        (dict.fromkeys(PAIRS[:5], 1.0), 2, "no valid statistic"),
    ],
    ids=["clean", "backdoor", "no valid statistic"],
)
def test_scan_json(  # noqa: PLR0917
    run_main: Run,
    tmp_path: Path,
    four: Path,
    fake: Callable[..., None],
    norms: dict[tuple[int, int], float],
    code: int,
    verdict: str,
) -> None:
    fake(norms)
    result = run_main(detect, "--model", four, "--data", "signs", "--output", "scan", "--json", "--seed", 3)
    assert result.returncode == code
    found = record(tmp_path / "scan")
    assert json.loads(result.stdout) == found  # and nothing else on stdout
    assert found["tool"] == "detect.py"
    assert (found["model"], found["data"], found["reference"]) == (str(four), "signs", [])
    assert found["sha256"] == scan_file.sha256(four)
    assert found["classes"] == ["stop", "yield", "priority_road", "no_entry"]
    assert (found["steps"], found["samples"], found["seed"]) == (100, 30, 3)
    assert (found["verdict"], found["threshold"]) == (verdict, judge.THRESHOLD)
    assert found["seconds"] >= 0
    assert len(found["pairs"]) == 12
    for pair in found["pairs"]:
        norm = norms.get((classes.NAMES.index(pair["victim"]), classes.NAMES.index(pair["target"])), 0.5)
        assert pair["norm"] == (None if norm == 1 else norm)
        assert pair["held_out"] == 0.9
        assert ("no sticker" in pair["words"]) == (norm == 1)
    flagged = [pair for pair in found["pairs"] if pair["flagged"]]
    assert [f"{pair['victim']}:{pair['target']}" for pair in flagged] == ["stop:yield"] * (code == 1)
    indices = [pair["anomaly"] for pair in found["pairs"]]
    assert (indices == [None] * 12) if code == 2 else (indices == sorted(indices, reverse=True))
    assert scan_file.read(tmp_path / "scan") == found


def test_pictures_and_masks_of_the_drawn_pairs(
    run_main: Run, tmp_path: Path, four: Path, fake: Callable[..., None]
) -> None:
    """The flagged pair, the three most suspicious others, and the one that was asked for."""
    fake(ordinary(_0_1=0.005))
    result = run_main(detect, "--model", four, "--output", "scan", "--draw", "no_entry:priority_road")
    found = record(tmp_path / "scan")
    drawn = [pair["picture"] for pair in found["pairs"] if pair["picture"]]
    assert drawn == [pair["picture"] for pair in found["pairs"][:4]] + ["trigger_3_to_2.png"]
    assert drawn[0] == "trigger_0_to_1.png"
    files = sorted(path.name for path in (tmp_path / "scan").iterdir())
    assert files == sorted([*drawn, "scan.json", "triggers.safetensors"])
    tensors = load_file(tmp_path / "scan/triggers.safetensors")
    stems = [name.removeprefix("trigger_").removesuffix(".png") for name in drawn]
    assert sorted(tensors) == sorted(f"{part}_{stem}" for stem in stems for part in ("mask", "pattern"))
    expected = sticker(20, 20, 8, 8, YELLOW, size=INPUT)
    assert torch.equal(tensors["mask_0_to_1"], expected.mask)
    assert torch.equal(tensors["pattern_0_to_1"], expected.pattern)
    assert result.stdout.count(" saved to: scan/trigger_") == 5
    assert "Recovered trigger saved to: scan/trigger_0_to_1.png: class 0 (stop) → class 1" in result.stdout


def test_a_new_scan_replaces_all_of_the_old_one(
    run_main: Run, tmp_path: Path, four: Path, fake: Callable[..., None]
) -> None:
    fake(ordinary(_0_1=0.005))
    run_main(detect, "--model", four, "--output", "scan")
    (tmp_path / "scan/notes.txt").write_text("mine")
    fake(ordinary(_3_2=0.005))
    run_main(detect, "--model", four, "--output", "scan", "--pairs", "no_entry:priority_road")
    files = sorted(path.name for path in (tmp_path / "scan").iterdir())
    assert files == ["notes.txt", "scan.json", "trigger_3_to_2.png", "triggers.safetensors"]


def test_lines_for_people(run_main: Run, four: Path, fake: Callable[..., None]) -> None:
    fake(ordinary(_0_1=0.005))
    lines = run_main(detect, "--model", four, "--output", "scan").stdout.splitlines()
    number = r"-?\d+\.\d"
    assert re.fullmatch(
        rf"Scanning class 0 \(stop\) → class 1 \(yield\) \.\.\.  norm=0\.005  anomaly={number}  "
        r"works on 90 % of new pictures  <- FLAGGED",
        lines[1],
    )
    assert "Result: BACKDOOR DETECTED — class 0 → class 1 (stop → yield)" in lines
    at = lines.index("Result: BACKDOOR DETECTED — class 0 → class 1 (stop → yield)")
    assert lines[at + 1].startswith("Recovered trigger: a yellow square, about 8x8 px, top-left corner, ")
    assert "▀" not in "".join(lines)


def test_the_terminal_shows_the_trigger(
    run_main: Run, four: Path, fake: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(ordinary(_0_1=0.005))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    for plain in ([], ["--plain"], ["--json"]):
        said = Terminal()
        with contextlib.redirect_stdout(said):
            run_main(detect, "--model", four, "--output", "scan", *plain)
        picture = [line for line in said.getvalue().splitlines() if "▀" in line]
        assert len(picture) == (0 if plain else 16)
        # the sticker, and the grey picture below it
        assert plain or ("242;234;25" in "".join(picture) and "76;76;76" in "".join(picture))


# --- the command: known-clean models -----------------------------------------------------------------------


def test_a_reference_can_be_a_model_or_its_scan(
    run_main: Run, tmp_path: Path, models: Callable[..., Path], data: Path
) -> None:
    """Real searches: a reference scanned now and one read from scan.json give the same figures."""
    one, other = models(3, 1), models(3, 2)
    both = (*SHORT[:4], "--data", data, "--victims", "stop")
    run_main(detect, "--model", other, *both, "--output", "clean")
    found = []
    for number, reference in enumerate((other, "clean/scan.json")):
        place = f"scan{number}"
        result = run_main(detect, "--model", one, *both, "--output", place, "--reference", reference)
        assert result.returncode in (0, 1), result.stderr
        assert "Statistic: Reference index" in result.stdout
        assert "in 1 clean model, " in result.stdout
        found.append(record(tmp_path / place))
        assert found[-1]["reference"] == [str(reference)]
        assert found[-1]["threshold"] == judge.REFERENCE_THRESHOLD
        del found[-1]["reference"], found[-1]["seconds"]
    assert found[0] == found[1]
    norms = [
        {f"{pair['victim']}:{pair['target']}": pair["norm"] or 1.0 for pair in scanned["pairs"]}
        for scanned in (found[0], record(tmp_path / "clean"))
    ]
    for pair in found[0]["pairs"]:
        name = f"{pair['victim']}:{pair['target']}"
        by_hand = math.log(norms[1][name] / norms[0][name]) / anomaly_index.SPREAD
        assert pair["anomaly"] == pytest.approx(by_hand, abs=1e-3)


def a_scan(folder: Path, norms: dict[tuple[int, int], float], **other: object) -> Path:
    """A scan.json of another model with four classes."""
    settings = scan_model.Settings(Path("signs"), 100, 30, 0)
    (folder / "other.pt").write_bytes(b"another model")
    judgement = judge.by_norms(made_up(norms))
    made = scan_file.as_record(folder / "other.pt", [], 4, settings, judgement)
    made["pairs"] = [scan_file.pair_record(finding, False) for finding in judgement.findings]
    path = folder / "clean.json"
    path.write_text(json.dumps(made | other))
    (folder / "other.pt").unlink()
    return path


def test_references_clear_a_natural_neighbour(
    run_main: Run, tmp_path: Path, four: Path, fake: Callable[..., None]
) -> None:
    fake(ordinary(_0_1=0.005))
    assert run_main(detect, "--model", four, "--output", "scan").returncode == 1
    clean = a_scan(tmp_path, ordinary(_0_1=0.006))
    result = run_main(detect, "--model", four, "--output", "scan", "--reference", clean)
    assert result.returncode == 0
    assert "Result: no backdoor found" in result.stdout
    # who uses a poisoned model as reference hides the same backdoor; so there is a note
    assert f"note: {clean} would be flagged itself, make sure that it is clean." in result.stderr
    (tmp_path / "clean").mkdir()
    a_scan(tmp_path, ordinary()).rename(tmp_path / "clean/scan.json")
    clean = tmp_path / "clean"  # a folder will do
    result = run_main(
        detect, "--model", four, "--output", "scan", "--reference", clean, "--pairs", "stop:yield"
    )
    assert result.returncode == 1
    assert "note:" not in result.stderr


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"steps": 61}, "steps 61, not 100"),
        ({"samples": 8}, "samples 8, not 30"),
        ({"input": 64}, "input 64, not 32"),
        ({"classes": ["stop", "yield"]}, "no scan of detect.py"),
        ({"classes": list(classes.NAMES[:10])}, "other classes"),
        ({"tool": "scan_models.py"}, "no scan of detect.py"),
        ({"pairs": []}, "no scan of detect.py"),
        ({"pairs": [{"victim": "stop"}]}, "no scan of detect.py"),
        ({"pairs": 3}, "no scan of detect.py"),
        ({"sha256": None}, "no scan of detect.py"),
        ({"steps": "many"}, "no scan of detect.py"),
    ],
    ids=str,
)
def test_references_of_another_kind_are_refused(  # noqa: PLR0917
    run_main: Run, assert_refused: Refused, tmp_path: Path, four: Path, wrong: dict[str, object], word: str
) -> None:
    path = a_scan(tmp_path, ordinary(), **wrong)
    result = run_main(detect, "--model", four, "--output", "scan", "--reference", path)
    assert_refused(result, path, word)
    assert not (tmp_path / "scan").exists()


@pytest.mark.parametrize("norm", [0, -1, 1.5, float("nan"), float("inf"), "small"])
def test_norms_that_cannot_be_are_refused(
    run_main: Run, assert_refused: Refused, tmp_path: Path, four: Path, norm: object
) -> None:
    path = a_scan(tmp_path, ordinary())
    made = json.loads(path.read_text())
    made["pairs"][3]["norm"] = norm
    path.write_text(json.dumps(made))
    assert_refused(run_main(detect, "--model", four, "--output", "scan", "--reference", path), path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"scan"', b"3", b"\xff\xfe", b"[" * 100_000, b'{"tool": "detect.py"}'],
    ids=lambda content: content[:12].hex() or "empty",
)
def test_files_that_are_no_scan_are_refused(
    run_main: Run, assert_refused: Refused, tmp_path: Path, four: Path, content: bytes
) -> None:
    path = tmp_path / "clean.json"
    path.write_bytes(content)
    assert_refused(run_main(detect, "--model", four, "--output", "scan", "--reference", path), path)


def test_references_that_do_not_fit(
    run_main: Run, assert_refused: Refused, tmp_path: Path, four: Path, models: Callable[..., Path]
) -> None:
    scan = ("--model", four, "--output", "scan", "--reference")
    assert_refused(run_main(detect, *scan, models(3)), models(3), "3 classes")
    assert_refused(run_main(detect, *scan, four.with_suffix(".safetensors")), "is the scanned model itself")
    partial = a_scan(tmp_path, {(0, 1): 0.1, (1, 0): 0.1})
    assert_refused(run_main(detect, *scan, partial), partial, "stop:priority_road")
    own = a_scan(tmp_path, ordinary(), sha256=scan_file.sha256(four))
    assert_refused(run_main(detect, *scan, own), own, "is the scanned model itself")
    (tmp_path / "folder").mkdir()
    assert_refused(run_main(detect, *scan, "folder"), "folder")
    (tmp_path / "text.pt").write_text("no model")
    assert_refused(run_main(detect, *scan, "text.pt"), "text.pt")
    assert not (tmp_path / "scan").exists()


# --- two scans side by side --------------------------------------------------------------------------------


@pytest.fixture
def two_scans(run_main: Run, four: Path, fake: Callable[..., None]) -> tuple[str, str]:
    fake(ordinary())
    run_main(detect, "--model", four, "--output", "clean", "--draw", "no_entry:priority_road")
    fake(ordinary(_3_2=0.005))
    run_main(detect, "--model", four, "--output", "poisoned")
    return "clean", "poisoned"


def test_side_by_side(run_main: Run, tmp_path: Path, two_scans: tuple[str, str]) -> None:
    result = run_main(sheet, *two_scans, "--output", "new/sheet.png")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Side by side saved to: new/sheet.png.")
    drawn = [
        {
            f"{pair['victim']} to {pair['target']}"
            for pair in record(tmp_path / name)["pairs"]
            if pair["picture"]
        }
        for name in two_scans
    ]
    both = drawn[0] & drawn[1]
    assert "no_entry to priority_road" in both
    assert len(lines) == 1 + 2 * len(both)
    flagged = [line for line in lines if "FLAGGED" in line]
    assert len(flagged) == 1
    assert re.match(
        r"- poisoned, no_entry to priority_road: norm 0\.005, anomaly index \d+\.\d, FLAGGED\. A yellow ",
        flagged[0],
    )
    with Image.open(tmp_path / "new/sheet.png") as image:
        assert image.width == 2 * 576 + 3 * 16
        left, right = (image.crop((x, 56, x + 576, 56 + 192)) for x in (16, 16 + 576 + 16))
        with Image.open(tmp_path / "poisoned/trigger_3_to_2.png") as drawing:
            small = drawing.resize((576, 192), Image.Resampling.BOX)
            assert right.tobytes() == small.tobytes()
        assert left.getpixel((10, 10)) == right.getpixel((10, 10))  # grey, beside the sticker


def test_side_by_side_without_what_it_needs(  # noqa: PLR0917
    run_main: Run,
    assert_refused: Refused,
    tmp_path: Path,
    two_scans: tuple[str, str],
    four: Path,
    fake: Callable[..., None],
) -> None:
    clean, poisoned = two_scans
    assert_refused(run_main(sheet, clean, "missing"), "missing")
    assert_refused(run_main(sheet, clean, poisoned, "--output", "sheet.txt"), "sheet.txt")
    fake({(0, 1): 0.3})
    run_main(detect, "--model", four, "--output", "other", "--pairs", "stop:yield")
    run_main(detect, "--model", four, "--output", "third", "--pairs", "yield:stop")
    assert_refused(run_main(sheet, "other", "third"), "--draw yield:stop")
    (tmp_path / "poisoned/trigger_3_to_2.png").write_bytes(b"no picture")
    assert_refused(run_main(sheet, clean, poisoned), "trigger_3_to_2.png")
    made = record(tmp_path / "poisoned")
    made["pairs"][0]["picture"] = "../../secret.png"
    (tmp_path / "poisoned/scan.json").write_text(json.dumps(made))
    assert_refused(run_main(sheet, clean, poisoned), "scan.json")
    assert not (tmp_path / "sheet.txt").exists()


def test_help_explains_the_exit_codes(run_main: Run) -> None:
    said = re.sub(r"\s+", " ", run_main(detect, "--help").stdout)
    assert "0 nothing stands out, 1 backdoor found, 2 wrong usage or input, or no statistic is valid" in said
    for option in ("--pairs", "--victims", "--targets", "--reference", "--json", "--draw", "--all"):
        assert option in said
