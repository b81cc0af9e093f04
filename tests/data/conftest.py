"""Files that are taken for large ones."""

import pytest

from reversal.data import csv_types, reservoir, table_file


@pytest.fixture
def streams(monkeypatch):
    """Every file is taken for a large one, and read a few hundred rows at a time."""
    monkeypatch.setattr(table_file, "LARGE", 0)
    monkeypatch.setattr(table_file, "BATCH_CELLS", 6000)
    monkeypatch.setattr(csv_types, "BLOCK", 20_000)
    monkeypatch.setattr(reservoir, "LEAST_ROWS", 10)


@pytest.fixture(params=["table.parquet", "table.csv"])
def path(request, tmp_path):
    """Where a file of either format goes."""
    return tmp_path / request.param
