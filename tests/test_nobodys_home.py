"""The tests leave the home of whoever runs them alone."""

from __future__ import annotations

import pytest
from underpaint_backend.models.store import cache_folder
from underpaint_protocol.locations import data_folder


def test_what_names_no_home_has_one_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Underpaint's files and the hub's cache lie below the folder of this run."""
    for folder in (data_folder(), cache_folder()):
        assert folder.is_relative_to(tmp_path_factory.getbasetemp())
