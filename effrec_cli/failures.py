"""Any exception as one screen for the user and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback

from effrec_cli.errors import ConfigError, EffrecError, EnvironmentFault, OutOfMemoryError

DEBUG_VARIABLE = "EFFREC_DEBUG"

# Packages that are an extra, and the extra that brings them.
_EXTRAS = {
    "pandas": "data",
    "pyarrow": "data",
    "scipy": "data",
    "sklearn": "data",
    "transformers": "encoders",
    "peft": "encoders",
    "PIL": "images",
    "pynvml": "gpu",
}
_FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


def report(error: Exception) -> int:
    """Prints what went wrong to stderr and returns the exit code; the traceback only under `--debug`."""
    known = as_effrec(error)
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    print(f"effrec: {known}", file=sys.stderr)
    return known.exit_code


def as_effrec(error: Exception) -> EffrecError:
    """Returns the error itself, or the one of ours that says what an outside exception means."""
    if isinstance(error, EffrecError):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return OutOfMemoryError(
            "There is not enough memory.", where=_text(error), fix="see `effrec validate`"
        )
    if isinstance(error, ImportError):
        return _missing_package(error)
    if isinstance(error, OSError) and error.errno in (*_FULL_OR_CLOSED, *_ABSENT):
        return _file_system(error)
    if "InvalidCxxCompiler" in {type(error).__name__, type(getattr(error, "inner_exception", None)).__name__}:
        return EnvironmentFault(
            "torch.compile needs a C++ compiler on a CPU, and none works here.",
            where=_text(error),
            fix="install g++ or name one by the variable CXX, or leave out run.compile and method.compile",
        )
    return EffrecError(
        f"This should not have happened: {type(error).__name__}: {error}",
        fix="run it again with --debug and report the traceback",
    )


def _missing_package(error: ImportError) -> EffrecError:
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    fix = f"pip install 'effrec[{extra}]'" if extra else "effrec doctor says what is installed"
    return EnvironmentFault(f"A Python package cannot be imported: {error}", fix=fix)


def _file_system(error: OSError) -> EffrecError:
    where = str(error.filename) if error.filename else None
    what = f"{error.strerror}."
    return ConfigError(what, where=where) if error.errno in _ABSENT else EnvironmentFault(what, where=where)


def _text(error: Exception) -> str | None:
    lines = str(error).splitlines()
    return lines[0] if lines else None
