"""Jobs: firmware updates and uploads of diagnostics and logs, begun by a command, continued by status notifications.

OCPP 1.6, 4.4, 4.5, 5.9, 5.19; OCPP 1.6 security whitepaper, L01, N01.
"""

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from csms.core import reports
from csms.core.command_answers import CommandAnswer, as_int, as_text
from csms.core.device_state import Job
from csms.core.events import timestamp
from csms.core.masking import without_credentials
from csms.core.work import Work

JOB_KINDS = {
    "UpdateFirmware": "firmware",
    "SignedUpdateFirmware": "signed_firmware",
    "GetDiagnostics": "diagnostics",
    "GetLog": "log",
}
REQUESTED, SUPERSEDED, NOTHING_TO_UPLOAD = "Requested", "Superseded", "NothingToUpload"
_FINAL = {
    "BadMessage",
    "DownloadFailed",
    "InstallVerificationFailed",
    "InstallationFailed",
    "Installed",
    "InvalidSignature",
    "NotSupportedOperation",
    "PermissionDenied",
    "UploadFailed",
    "UploadFailure",
    "Uploaded",
}
_MAX_STEPS = 100


def on_job_command(work: Work, done: CommandAnswer) -> None:
    """Begin the job of an answered command. An older one of the same kind that still runs is superseded.

    GetDiagnostics.conf without a file name has nothing to upload (5.9); a rejected command makes an ended job.
    """
    kind = JOB_KINDS[done.action]
    refused = done.status not in {None, "Accepted", "AcceptedCanceled"}
    nothing_to_upload = done.action == "GetDiagnostics" and not as_text(done.answer.get("fileName"))
    p = done.payload
    location: Any = p.get("location")
    for part, field in (("log", "remoteLocation"), ("firmware", "location")):
        inner = p.get(part)
        location = inner.get(field) if isinstance(inner, dict) else location
    status = str(done.status) if refused else NOTHING_TO_UPLOAD if nothing_to_upload else REQUESTED
    known = work.device_row(Job, done.charger_id, done.command_id)
    if known is not None:
        return  # a repeated answer must not reset the job's progress
    if not refused:
        for other in work.device_rows(Job, done.charger_id):
            if other.kind == kind and other.ended_at is None:
                work.put(_with_status(other, SUPERSEDED, work.now, ended=True))
    work.put(
        Job(
            charger_id=done.charger_id,
            id=done.command_id,
            kind=kind,
            request_id=as_int(p.get("requestId")),
            location=without_credentials(location) if isinstance(location, str) else None,
            file_name=as_text(done.answer.get("fileName")) or as_text(done.answer.get("filename")),
            status=status,
            requested_at=work.now,
            updated_at=work.now,
            ended_at=work.now if refused or nothing_to_upload else None,
        )
    )


def progress(work: Work, r: reports.Progress) -> None:
    """Continue the job of a status notification; one without a job here, such as one begun by hand, makes a new job."""
    job = _find_job(work, r)
    if job is None:
        if r.status == "Idle":
            return
        job = Job(
            charger_id=r.charger_id,
            id=f"unasked-{next(work.numbers)}",
            kind=r.kind,
            request_id=r.request_id,
            requested_at=work.now,
            updated_at=work.now,
        )
    if job.status == r.status:
        work.put(replace(job, updated_at=work.now))
    elif r.status != "Idle" or job.ended_at is None:
        work.put(_with_status(job, r.status, work.now, ended=r.status in _FINAL))


def _find_job(work: Work, r: reports.Progress) -> Job | None:
    jobs = [job for job in work.device_rows(Job, r.charger_id) if job.kind == r.kind]
    if r.request_id is not None:
        jobs = [job for job in jobs if job.request_id == r.request_id]
    newest = sorted(jobs, key=lambda job: (job.ended_at is None, job.requested_at, job.id))
    if not newest:
        return None
    job = newest[-1]
    # An ended job stays ended; only its final status may be repeated or corrected.
    return job if job.ended_at is None or r.status in {job.status, "Idle"} or r.status in _FINAL else None


def _with_status(job: Job, status: str, now: datetime, *, ended: bool) -> Job:
    steps = (*job.progress, {"status": status, "at": timestamp(now)})[-_MAX_STEPS:]
    return replace(
        job, status=status, progress=steps, updated_at=now, ended_at=now if ended else job.ended_at
    )
