"""Chips and slices: every number has a source, and what does not exist is refused by name."""

from pathlib import Path

import pytest

from capacity.hardware.chip import Chip
from capacity.hardware.chips import find_chip, known_chips
from capacity.hardware.slice import find_slice, slices_of
from client.errors import UsageError


@pytest.mark.parametrize("chip", known_chips().values(), ids=lambda chip: chip.name)
def test_every_figure_says_where_it_comes_from(chip: Chip) -> None:
    for name, figure in chip.figures.items():
        assert len(figure.source) > 10, name
        assert figure.date.startswith("202"), name
    # A product moves data more slowly than it computes, in bytes and operations.
    assert chip.peak("bf16") > chip.bandwidth > 1e11


@pytest.mark.parametrize(
    ("text", "name", "count", "topology"),
    [
        ("v5e-8", "v5e-8", 8, "2x4"),
        ("V5E-2x4", "v5e-8", 8, "2x4"),
        ("v5litepod-1", "v5e-1", 1, "1x1"),
        # The number counts cores, and a chip has two.
        ("v5p-8", "v5p-8", 4, "2x2x1"),
        ("v4-8", "v4-8", 4, "2x2x1"),
        ("v6e-8", "v6e-8", 8, "2x4"),
        ("h100x8", "h100x8", 8, ""),
        ("h100 x 2", "h100x2", 2, ""),
        ("A100-80GB", "a100-80g", 1, ""),
        ("a5000 x 8", "a5000x8", 8, ""),
    ],
)
def test_slices_by_the_names_people_use(text: str, name: str, count: int, topology: str) -> None:
    found = find_slice(text, known_chips())
    assert (found.name, found.count, found.topology) == (name, count, topology)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("v5e-7", "v5e-8 (2x4)"),
        ("v5e-3x3", "v5e-4 (2x2)"),
        ("v5e-4x2", "v5e-8 (2x4)"),
        ("v5p-9", "v5p-8 (2x2x1)"),
        ("v5p", "v5p-8 (2x2x1)"),
        ("h100x0", "1 chip or more"),
        ("h1000x8", "h100"),
        ("v5x-8", "v5e"),
        ("x8", "is not known"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_slice(text, known_chips())
    assert says in str(caught.value)


def test_every_slice_can_be_asked_for_by_its_own_name() -> None:
    chips = known_chips()
    for chip in chips.values():
        for each in slices_of(chip):
            assert find_slice(each.name, chips) == each


def test_gpus_beyond_a_group_share_the_hosts_bus() -> None:
    chips = known_chips()
    pair, eight = find_slice("a5000x2", chips), find_slice("a5000x8", chips)
    assert pair.link == 112.5e9 / 2
    assert eight.link == 64e9 / 2
    assert find_slice("a5000", chips).link is None


def test_a_file_adds_and_corrects(tmp_path: Path) -> None:
    path = tmp_path / "chips.toml"
    path.write_text(
        "[v5e]\nprice_per_hour = 0.5\n"
        "[mine]\nkind = 'gpu'\naliases = ['My GPU']\nmemory_gib = 10\nbandwidth_gbps = 100\n"
        "bf16_tops = { value = 1, source = 'a label' }\n"
    )
    chips = known_chips(path)
    assert chips["v5e"].need("price_per_hour") == 0.5
    assert chips["v5e"].need("bandwidth_gbps") == 819
    assert chips["v5e"].figures["price_per_hour"].source == "given by the user"
    assert find_chip("my gpu", chips).peak("int8") == 1e12
    with pytest.raises(UsageError, match="no watts; give it with --chips"):
        chips["mine"].need("watts")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[v5e]\nbandwith_gbps = 1", "bandwidth_gbps"),
        ("[mine]\nmemory_gib = 1", "no bandwidth_gbps"),
        ("[mine]\nmemory_gib = -1\nbandwidth_gbps = 1", "above 0"),
        ("[mine]\nkind = 'npu'\nmemory_gib = 1\nbandwidth_gbps = 1", "tpu, gpu, cpu"),
        ("[v5e]\nwatts = { worth = 1 }", "value, source"),
        ("v5e = 3", "is no chip"),
        ("[v5e", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_its_key(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "chips.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        known_chips(path)
    assert says in str(caught.value)
    with pytest.raises(UsageError, match="cannot read"):
        known_chips(tmp_path / "absent.toml")
