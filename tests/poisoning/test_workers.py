"""Demo 2: work divided among threads, and the network for answers only."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest
import torch

from network import classifier, device, frozen, resnet, workers


@pytest.fixture(params=[1, 2, 3])
def count(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(workers, "count", lambda: request.param)
    return int(request.param)


def piece(number: int, steps: int, threads: set[str]) -> Generator[None, None, tuple[int, int]]:
    for _ in range(steps):
        threads.add(threading.current_thread().name)
        yield
    return number, torch.get_num_threads()


def test_results_come_in_order_and_each_step_is_seen(count: int) -> None:
    """Each piece computes in one PyTorch thread; the caller keeps its own number of them."""
    before, threads, results, steps = torch.get_num_threads(), set[str](), [], 0
    divided = workers.divide([piece(number, number, threads) for number in range(5)])
    while True:
        try:
            next(divided)
        except StopIteration as end:
            results = end.value
            break
        steps += 1
    assert results == [(number, 1) for number in range(5)]
    assert steps == 10
    assert 1 <= len(threads) <= count
    assert torch.get_num_threads() == before


def test_an_error_ends_all_pieces(count: int) -> None:
    ended: list[str] = []

    def endless(error: type[Exception] | None) -> Generator[None, None, None]:
        try:
            yield
            if error:
                raise error("broken")
            while True:
                yield
        finally:
            ended.append("")

    pieces = [endless(ZeroDivisionError), endless(None)]
    with pytest.raises(ZeroDivisionError, match="broken"):
        list(workers.divide(pieces))
    assert threading.active_count() == 1 or not any("ThreadPool" in one.name for one in threading.enumerate())


def test_whoever_stops_is_not_kept_waiting(count: int) -> None:
    def endless() -> Generator[None, None, None]:
        while True:
            yield

    divided = workers.divide([endless(), endless()])
    for _ in range(3):
        next(divided)
    divided.close()
    assert not any("ThreadPool" in one.name for one in threading.enumerate())


def test_a_frozen_network_answers_the_same() -> None:
    """Batch norms with statistics of their own, as after training; the trained network is left as it was."""
    torch.manual_seed(0)
    model = resnet.build(10).eval()
    for name, values in model.state_dict().items():
        if "bn" in name or "downsample.1" in name:
            values.copy_(torch.rand(values.shape) + 0.5 if values.is_floating_point() else values)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    fast = frozen.freeze(model)
    pixels = torch.rand(6, 3, classifier.INPUT, classifier.INPUT)
    with torch.no_grad():
        exact = model(classifier.normalise(pixels))
        answer, usual = (classifier.logits(one, pixels) for one in (fast, model))
    far = (usual - exact).norm() / exact.norm()
    assert (answer - exact).norm() / exact.norm() < max(2 * far, 1e-5)
    assert answer.dtype == torch.float32
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert not any(one.requires_grad for one in fast.parameters())
    pixels.requires_grad_()
    classifier.logits(fast, pixels)[:, 1].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


def test_parts_come_in_order_each_on_one_core(count: int) -> None:
    before = torch.get_num_threads()

    def work(part: int) -> tuple[int, int, bool, str]:
        return part, torch.get_num_threads(), torch.is_grad_enabled(), threading.current_thread().name

    with torch.no_grad():
        found = [*workers.side_by_side(work, range(7))]
    assert [part for part, *_ in found] == list(range(7))
    assert not any(gradients for _, _, gradients, _ in found)  # as where it was called
    if count > 1:
        assert {threads for _, threads, _, _ in found} == {1}
        assert len({name for *_, name in found} - {threading.current_thread().name}) <= count
    assert torch.get_num_threads() == before


def test_a_part_that_fails_ends_the_others(count: int) -> None:
    done: list[int] = []

    def work(part: int) -> int:
        done.append(part)
        if part > 1:
            time.sleep(0.01)  # else all may be done before the caller hears of the one that failed
        return 1 // part

    with pytest.raises(ZeroDivisionError):
        [*workers.side_by_side(work, [1, 0, *range(2, 500)])]
    assert len(done) < 500


def test_one_core_for_operations_and_all_for_divided_work() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with workers.one_core():
            assert torch.get_num_threads() == 1
            assert workers.count() == (3 if device.best() == device.PROCESSOR else 1)
            inside = [*workers.side_by_side(lambda _: workers.count(), range(3))]
            assert inside == [1, 1, 1] or workers.count() == 1
        assert torch.get_num_threads() == workers.count() == 3 or workers.count() == 1
    finally:
        torch.set_num_threads(before)


def test_free_cores_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of one, and never more than there are; half of the computing time is half of the cores."""
    assert workers.free(1) == 1
    assert 1 <= workers.free(2) <= 2
    got = iter([0.0, 0.4])  # seconds of computing within the probe
    clock = iter([10.0, *(10.05, 10.2) * 4, 10.2])
    monkeypatch.setattr(workers.time, "process_time", lambda: next(got))
    monkeypatch.setattr(workers.time, "monotonic", lambda: next(clock, 10.2))
    assert workers.free(4) == 2
