"""A machine without a C++ compiler is a fault of the machine, told with what to leave out."""

from effrec_cli.failures import as_effrec


class InvalidCxxCompiler(RuntimeError):
    """Named as torch names it."""


class InductorError(RuntimeError):
    """Wraps what went wrong while compiling, as torch's does."""

    def __init__(self, inner_exception):
        super().__init__(f"{type(inner_exception).__name__}: {inner_exception}")
        self.inner_exception = inner_exception


def test_no_compiler_is_a_fault_of_the_machine():
    known = as_effrec(InductorError(InvalidCxxCompiler("No working C++ compiler found")))
    assert known.exit_code == 6
    assert "CXX" in str(known)
    assert "run.compile" in str(known)


def test_another_fault_of_the_compiler_is_no_missing_one():
    assert as_effrec(InductorError(ValueError("x"))).exit_code == 1
