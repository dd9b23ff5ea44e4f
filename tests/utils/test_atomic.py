"""Files that are there whole or not at all, and what killed processes leave of them."""

import os
import signal
import subprocess
import sys

import pytest

from tvit_seg.utils.atomic import clear_leftovers, replacing

WRITES = """
import sys, time
from tvit_seg.utils.atomic import replacing
with replacing(sys.argv[1]) as path:
    path.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """Another process in the middle of writing a checkpoint."""
    command = [sys.executable, "-c", WRITES, str(tmp_path / "iter_2.pth")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while "writing" not in process.stdout.readline():
        assert process.poll() is None
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.integration
def test_leftovers_of_the_dead_are_cleared_only(tmp_path, writer):
    (tmp_path / "iter_2.pth").write_bytes(b"old")
    mine = f"iter_2.pth.{writer.pid}.tmp"
    (tmp_path / "notes.tmp").touch()
    (tmp_path / "iter_2.pth.tmp").touch()
    assert clear_leftovers(tmp_path) == []
    assert (tmp_path / mine).read_bytes() == b"half"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert clear_leftovers(tmp_path) == [tmp_path / mine]
    assert sorted(os.listdir(tmp_path)) == ["iter_2.pth", "iter_2.pth.tmp", "notes.tmp"]
    assert (tmp_path / "iter_2.pth").read_bytes() == b"old"


def test_own_writing_is_not_a_leftover(tmp_path):
    with replacing(tmp_path / "w.safetensors") as path:
        path.write_bytes(b"new")
        assert clear_leftovers(tmp_path) == []
    assert (tmp_path / "w.safetensors").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["w.safetensors"]
