"""The learned size of a request."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gapless.sources.evm.span import Span


def drive(
    span: Span, accepts: Callable[[int], bool], rounds: int, bytes_each: int = 1, items_each: int = 0
) -> list[int]:
    """Ask `rounds` times against an endpoint that accepts some sizes; the sizes asked for."""
    asked = []
    for _ in range(rounds):
        size = span.size
        asked.append(size)
        if accepts(size):
            span.succeeded(size, size_bytes=size * bytes_each, items=size * items_each)
        else:
            span.failed(size)
    return asked


def span(**changes: int) -> Span:
    settings = {"start": 64, "maximum": 2000, "bytes_target": 8 << 20, **changes}
    return Span(**settings)


def test_a_fast_node_is_asked_for_the_maximum_soon() -> None:
    """Without refusals the size doubles up to its bound and stays there."""
    asked = drive(span(), lambda _: True, 10)
    assert asked[:6] == [64, 128, 256, 512, 1024, 2000]
    assert asked[-1] == 2000


@pytest.mark.parametrize(("cap", "start", "maximum"), [(1000, 64, 2000), (10, 32, 128), (1, 64, 2000), (777, 50, 5000)])
def test_it_converges_under_a_hard_cap(cap: int, start: int, maximum: int) -> None:
    """Under a cap nearly every request succeeds, and with most of what the cap allows."""
    asked = drive(span(start=start, maximum=maximum), lambda n: n <= cap, 400)
    settled = asked[40:]
    refused = [n for n in settled if n > cap]
    accepted = [n for n in settled if n <= cap]
    assert len(refused) <= len(settled) * 0.05
    assert sum(accepted) / len(accepted) >= 0.8 * cap


def test_it_converges_under_a_cap_on_results_that_moves() -> None:
    """When the data becomes denser the size follows down, and back up when it thins out."""
    learned = span()
    sparse = drive(learned, lambda n: n * 20 <= 10_000, 300)
    dense = drive(learned, lambda n: n * 200 <= 10_000, 300)
    again = drive(learned, lambda n: n * 20 <= 10_000, 1500)
    assert 400 <= sparse[-1] <= 500
    assert 40 <= dense[-1] <= 50
    assert 400 <= again[-1] <= 500


def test_answers_larger_than_the_target_shrink_the_size_before_anything_fails() -> None:
    """8 MiB of answer at 64 KiB a block means 128 blocks."""
    asked = drive(span(), lambda _: True, 20, bytes_each=64 << 10)
    assert asked[-1] == 128


def test_many_small_items_shrink_the_size_too() -> None:
    """A target of 20,000 logs at 100 a block means 200 blocks."""
    assert drive(span(items_target=20_000), lambda _: True, 20, items_each=100)[-1] == 200


def test_a_single_dense_block_never_goes_below_one() -> None:
    """One block that alone exceeds every target is still asked for."""
    learned = span()
    learned.succeeded(64, size_bytes=1 << 40)
    assert learned.size == 1
    learned.failed(1)
    assert learned.size == 1


def test_failures_of_requests_in_flight_count_once() -> None:
    """Eight requests of the same size refused together are one lesson, not eight."""
    learned = span(start=800)
    for _ in range(8):
        learned.failed(800)
    assert learned.size == 400


def test_a_short_last_range_does_not_make_it_grow() -> None:
    """A range cut off by the head says nothing about larger ones."""
    learned = span()
    learned.succeeded(3, size_bytes=10)
    assert learned.size == 64
