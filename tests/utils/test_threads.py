import os

from tvit_seg.utils.threads import physical_cores, set_thread_defaults


def test_defaults_give_way_to_the_user(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    set_thread_defaults()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("7", "PASSIVE")
    monkeypatch.delenv("OMP_NUM_THREADS")
    set_thread_defaults()
    assert int(os.environ["OMP_NUM_THREADS"]) == physical_cores() >= 1
