"""The audit in a process of its own, so that it takes no time from the node's event loop.

The node gives it its job on standard input, and reads what it has found line by line. It has a low priority, one connection
to the database, and ends when its output is not read any more.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Sequence

import msgspec
from msgspec import Struct

from csms.core.work import Policy
from csms.db.audit_runs import AuditFinding
from csms.db.engine import create_engine
from csms.errors import CsmsError
from csms.service import audit as auditing

_STEP = 100  # transactions a line
_LONGEST_LINE = 64 * 1024 * 1024
_NICENESS = 10


class AuditJob(Struct, frozen=True, kw_only=True):
    database_url: str
    policy: Policy
    ids: Sequence[int]


class AuditStep(Struct, frozen=True, kw_only=True):
    """What the audit of some more transactions has found."""

    audited: int
    findings: Sequence[AuditFinding]


async def audited_beside(job: AuditJob) -> AsyncGenerator[AuditStep, None]:
    """Audit transactions in another process, which ends with this iterator. Raises CsmsError if it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    complaints = asyncio.create_task(process.stderr.read())
    try:
        with contextlib.suppress(ConnectionError):
            process.stdin.write(msgspec.json.encode(job))
            process.stdin.write_eof()
            await process.stdin.drain()
        decode = msgspec.json.Decoder(AuditStep).decode
        while line := await process.stdout.readline():
            yield decode(line)
        status = await process.wait()
        if status:
            told = (await complaints).decode(errors="replace").strip().splitlines()
            raise CsmsError(
                f"the process of the audit ended with {status}: {told[-1] if told else 'no message'}"
            )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await complaints


async def _work(job: AuditJob) -> None:
    engine = create_engine(job.database_url, pool_size=1)
    try:
        for at in range(0, len(job.ids), _STEP):
            step = job.ids[at : at + _STEP]
            found = [
                AuditFinding(
                    transaction_id=one.id,
                    revision=one.revision,
                    fields=tuple(dict.fromkeys(d.field for d in one.differences)),
                )
                async for one in auditing.audited_again(engine, step, job.policy)
                if one.differences
            ]
            line = msgspec.json.encode(AuditStep(audited=len(step), findings=found))
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
    finally:
        await engine.dispose()


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    asyncio.run(_work(msgspec.json.decode(sys.stdin.buffer.read(), type=AuditJob)))
