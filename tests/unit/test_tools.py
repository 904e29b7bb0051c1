"""The ports of tests: nobody is given one that somebody else was given, in this process or another."""

import json
import subprocess
import sys

import pytest

from tests import tools
from tests.tools import free_port

FEW = range(19_900, 19_950)  # which no other test is given
OTHER = f"""
import sys
from tests import tools
tools._ports = iter({list(FEW)})
print([tools.free_port(), tools.free_port()], flush=True)
sys.stdin.read()
"""


def test_a_port_is_given_once_until_its_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = set(json.loads(other.stdout.readline()))
        assert len(theirs) == 2
        monkeypatch.setattr(tools, "_ports", iter(FEW))
        ours = {free_port() for _ in range(3)}
        assert len(ours) == 3
        assert not ours & theirs
        other.communicate()
    # Not `ours` again: what ended is the other process.
    monkeypatch.setattr(tools, "_ports", iter(sorted(theirs)))
    assert {free_port(), free_port()} == theirs


def test_where_none_is_left_the_test_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_ports", iter(()))
    with pytest.raises(pytest.fail.Exception, match="every port"):
        free_port()
