"""Firmware and diagnostics."""

from tests.harness.conformance.bench import Bench, ahead

LOCATION = "https://files.example/firmware-2.0.bin"
UPLOAD = "ftp://files.example/diagnostics/"


async def _update(bench: Bench) -> None:
    await bench.booted()
    await bench.command(
        "UpdateFirmware", {"location": LOCATION, "retrieveDate": ahead(seconds=-1), "retries": 2}, {}
    )


async def _firmware(bench: Bench, *statuses: str) -> None:
    for status in statuses:
        assert await bench.point.call("FirmwareStatusNotification", status=status) == {}


async def _installs(bench: Bench) -> None:
    """Up to the restart that ends the installation."""
    await _firmware(bench, "Downloading", "Downloaded")
    await bench.status(1, "Unavailable")
    await _firmware(bench, "Installing")
    await bench.point.hang_up()
    await bench.point.dial()


async def test_tc_044_1_firmware_update_download_and_install(bench: Bench) -> None:
    """UpdateFirmware carries location and date; Downloading, Downloaded, Installing and, after an accepted
    boot, Installed are answered; the job with all its steps and the new version are stored."""
    await _update(bench)
    await _installs(bench)
    await bench.boot(firmwareVersion="2.0")
    await bench.status(1, "Available")
    await _firmware(bench, "Installed")
    assert (await bench.charger())["firmwareVersion"] == "2.0"
    job = await bench.job("firmware")
    assert job["steps"] == ["Downloading", "Downloaded", "Installing", "Installed"]
    assert (job["location"], job["ended_at"] is not None) == (LOCATION, True)


async def test_tc_044_2_firmware_update_download_failed(bench: Bench) -> None:
    """UpdateFirmware carries location and date; Downloading and DownloadFailed are answered; the job is
    stored as failed."""
    await _update(bench)
    await _firmware(bench, "Downloading", "DownloadFailed")
    job = await bench.job("firmware")
    assert (job["status"], job["ended_at"] is not None) == ("DownloadFailed", True)


async def test_tc_044_3_firmware_update_installation_failed(bench: Bench) -> None:
    """As 044_1, but InstallationFailed is answered after the restart; the job is stored as failed,
    the old version stays."""
    await _update(bench)
    await _installs(bench)
    await bench.boot()
    await bench.status(1, "Available")
    await _firmware(bench, "InstallationFailed")
    assert (await bench.charger())["firmwareVersion"] == "1.0"
    job = await bench.job("firmware")
    assert job["steps"] == ["Downloading", "Downloaded", "Installing", "InstallationFailed"]


async def _diagnostics(bench: Bench, *statuses: str) -> None:
    await bench.booted()
    await bench.command("GetDiagnostics", {"location": UPLOAD}, {"fileName": "diagnostics.zip"})
    for status in statuses:
        assert await bench.point.call("DiagnosticsStatusNotification", status=status) == {}
    job = await bench.job("diagnostics")
    assert (job["steps"], job["file_name"], job["ended_at"] is not None) == (
        list(statuses), "diagnostics.zip", True
    )  # fmt: skip


async def test_tc_045_1_get_diagnostics(bench: Bench) -> None:
    """GetDiagnostics carries the location; the operator receives the file's name; Uploading and Uploaded are
    answered; the job is stored with its steps and the file's name."""
    await _diagnostics(bench, "Uploading", "Uploaded")


async def test_tc_045_2_get_diagnostics_upload_failed(bench: Bench) -> None:
    """GetDiagnostics carries the location; Uploading and UploadFailed are answered; the job is stored as
    failed."""
    await _diagnostics(bench, "Uploading", "UploadFailed")
