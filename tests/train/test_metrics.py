"""The log of metrics, where its folder goes away under it."""

import threading
import time
from pathlib import Path

import pytest

from sora_spec.disk.run_folder import StageFolder
from sora_spec.train.metrics import MetricsLog


def _write_for_seconds(log: MetricsLog) -> None:
    for step in range(500):
        log.write({"step": step, "loss": 1.0})
        time.sleep(0.02)


def test_a_folder_that_is_gone_is_an_error_of_the_next_line_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    log = MetricsLog(StageFolder(tmp_path / "run" / "denoiser"), step=0)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        _write_for_seconds(log)
    time.sleep(0.1)
    assert capfd.readouterr().err == ""


def test_other_threads_still_report_their_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    MetricsLog(StageFolder(tmp_path / "run" / "denoiser"), step=0).close()
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    assert "ZeroDivisionError" in capfd.readouterr().err
