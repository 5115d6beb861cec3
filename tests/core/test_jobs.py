import pytest

from csms.core import reports
from csms.core.device_state import Job
from tests.harness.command_answers import answered
from tests.harness.fake_store import CP, FakeStore, at


@pytest.fixture
def desk():
    return FakeStore()


def begin(action, answer=None, name="j", **payload):
    return answered(
        action, {"location": "ftp://u:p@h/d", **payload}, {} if answer is None else answer, id=name
    )


def progress(kind, status, request_id=None):
    return reports.Progress(charger_id=CP, kind=kind, status=status, request_id=request_id)


def job(desk, name="j"):
    return next(row for row in desk.recall(Job) if row.id == name)


def test_a_firmware_update_goes_through_its_steps(desk):
    desk.tell(begin("UpdateFirmware", retrieveDate="2026-01-01T00:00:00Z"))
    assert (job(desk).status, job(desk).location) == ("Requested", "ftp://***@h/d")
    for minute, word in enumerate(["Downloading", "Downloaded", "Installing", "Installing", "Installed"]):
        desk.now = at(minute)
        desk.tell(progress("firmware", word))
    assert [step["status"] for step in job(desk).progress] == [
        "Downloading",
        "Downloaded",
        "Installing",
        "Installed",
    ]
    assert job(desk).ended_at == at(4)


@pytest.mark.parametrize(
    ("kind", "action", "final"),
    [
        ("firmware", "UpdateFirmware", "DownloadFailed"),
        ("firmware", "UpdateFirmware", "InstallationFailed"),
        ("diagnostics", "GetDiagnostics", "UploadFailed"),
        ("log", "GetLog", "PermissionDenied"),
        ("signed_firmware", "SignedUpdateFirmware", "InvalidSignature"),
    ],
)
def test_failures_end_a_job(desk, kind, action, final):
    desk.tell(begin(action, {"fileName": "f", "status": "Accepted"}))
    desk.tell(progress(kind, final))
    assert (job(desk).status, job(desk).ended_at) == (final, at(0))


def test_a_job_with_nothing_to_upload_ends_at_once(desk):
    desk.tell(begin("GetDiagnostics", {}))
    assert job(desk).status == "NothingToUpload"
    assert job(desk).ended_at is not None


def test_a_rejected_command_makes_an_ended_job_and_supersedes_nothing(desk):
    desk.tell(begin("GetLog", {"status": "Accepted"}, name="a", requestId=1))
    desk.tell(begin("GetLog", {"status": "Rejected"}, name="b", requestId=2))
    assert (job(desk, "a").ended_at, job(desk, "b").status) == (None, "Rejected")


def test_a_new_job_supersedes_the_old_one(desk):
    desk.tell(begin("GetLog", {"status": "Accepted"}, name="a", requestId=1))
    desk.tell(begin("GetLog", {"status": "AcceptedCanceled"}, name="b", requestId=2))
    assert (job(desk, "a").status, job(desk, "b").status) == ("Superseded", "Requested")


def test_the_request_id_identifies_the_job(desk):
    desk.tell(begin("GetLog", {"status": "Accepted"}, name="a", requestId=1))
    desk.tell(begin("GetLog", {"status": "AcceptedCanceled"}, name="b", requestId=2))
    desk.tell(progress("log", "Uploaded", 1))
    assert (job(desk, "a").status, job(desk, "b").status) == ("Uploaded", "Requested")


def test_progress_without_a_command_makes_a_job_unless_it_is_idle(desk):
    desk.tell(progress("firmware", "Idle"))
    assert desk.recall(Job) == []
    desk.tell(progress("firmware", "Downloading"))
    (found,) = desk.recall(Job)
    assert (found.id.startswith("unasked-"), found.status) == (True, "Downloading")


def test_the_same_answer_twice_makes_one_job(desk):
    desk.tell(begin("UpdateFirmware"))
    desk.tell(progress("firmware", "Downloading"))
    desk.tell(begin("UpdateFirmware"))
    assert job(desk).status == "Downloading"


def test_a_notification_does_not_reopen_an_ended_job(desk):
    desk.tell(begin("UpdateFirmware"))
    desk.tell(progress("firmware", "Installed"))
    desk.tell(progress("firmware", "Idle"))
    assert job(desk).status == "Installed"
    desk.tell(progress("firmware", "Downloading"))
    assert job(desk).status == "Installed"
    assert len(desk.recall(Job)) == 2
