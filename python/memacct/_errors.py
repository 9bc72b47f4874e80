"""The errors of memacct.

    MemacctError
    ├─ SourceError                 .source (a file or library), .reason
    │  ├─ SourceUnavailableError   not on this machine: no driver, old kernel, no permission
    │  ├─ SourceReadError          there, but the read failed       .errno
    │  └─ SourceFormatError        read, but not understood         .line
    ├─ DriverError                 a CUDA or NVML call failed       .api, .code
    ├─ SamplerError                a rate is not allowed, or used before start, after stop or fork
    ├─ BudgetError                 no budget that the engine could run in
    └─ ConfigError                 a wrong key or value (also a ValueError)

Only "unavailable" may become None. All arguments are in ``args``, so that each error
survives pickling between processes.
"""

from __future__ import annotations


class MemacctError(Exception):
    """Base of every error that memacct raises by itself."""


class SourceError(MemacctError):
    """A file or library did not give what was asked of it."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        # The loader's own text, which is the reason where a library is missing, begins with it.
        if self.reason.startswith(f"{self.source}: "):
            return self.reason
        return f"{self.source}: {self.reason}"


class SourceUnavailableError(SourceError):
    """Not on this machine: no driver, an old kernel, no permission."""


class SourceReadError(SourceError):
    """It is there, but reading it failed."""

    def __init__(self, source: str, reason: str, errno: int) -> None:
        super().__init__(source, reason)
        self.args = (source, reason, errno)
        self.errno = errno


class SourceFormatError(SourceError):
    """It was read, but not understood."""

    def __init__(self, source: str, reason: str, line: str) -> None:
        super().__init__(source, reason)
        self.args = (source, reason, line)
        self.line = line


class DriverError(MemacctError):
    """A CUDA or NVML function returned an error code."""

    def __init__(self, api: str, code: int, text: str = "") -> None:
        super().__init__(api, code, text)
        self.api = api
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.api} returned {self.code}" + (f" ({self.text})" if self.text else "")


class SamplerError(MemacctError):
    """A rate is not allowed, or a sampler was used before its start, after its stop or a fork."""


class BudgetError(MemacctError):
    """There is no budget that the engine could run in."""


class ConfigError(MemacctError, ValueError):
    """A configuration key or value is wrong; the message names both and what is allowed."""


# People see these names in tracebacks, and import them from the package.
for _public in (
    MemacctError,
    SourceError,
    SourceUnavailableError,
    SourceReadError,
    SourceFormatError,
    DriverError,
    SamplerError,
    BudgetError,
    ConfigError,
):
    _public.__module__ = "memacct"
