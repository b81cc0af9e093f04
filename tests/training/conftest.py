"""Trainings are saved at every step in these tests: nothing waits for a disk."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """What is written reaches the system and not the disk: no test lets the power fail."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
