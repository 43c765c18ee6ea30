"""Instances are reproducible and made as their family says."""

from __future__ import annotations

import pytest

from partitioner.instances.families import FAMILIES, instance


def test_the_same_seed_gives_the_same_instance() -> None:
    assert instance("base", 30, 20, 5) == instance("base", 30, 20, 5)
    assert instance("base", 30, 20, 5) != instance("base", 30, 20, 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_as_asked_for(family: str) -> None:
    for aims, devices in ((6, 10), (33, 27), (100, 40)):
        given = instance(family, aims, devices, 1)
        assert sum(len(w.aims) for w in given.workflows) == aims
        assert len(given.inventory.devices) == devices
        assert all(6 <= len(w.aims) <= 12 for w in given.workflows[:-1])


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="'odd' is none of base"):
        instance("odd", 10, 10)
